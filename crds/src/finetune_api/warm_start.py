"""Beginning with what an earlier FineTuneJob made: how a job asks for it, and what it was given."""

from typing import Literal

from finetune_api.artifact import Artifact
from finetune_api.model import ApiModel, Rule
from finetune_api.modelserver import Model
from finetune_api.references import ObjectName
from finetune_api.uris import JobModelUri

ParentAdapter = Literal["Train", "Merge"]


class JobModel(Model):
    """The model that a FineTuneJob begins with."""

    uri: JobModelUri
    """Where it lies: `hf://org/name`, `s3://bucket/prefix` or `pvc://claim/path`; `finetunejob://name` begins with the
    proven result of an earlier FineTuneJob in the namespace."""
    parent_adapter: ParentAdapter | None = None
    """What becomes of the adapter of a `finetunejob://`: `Train` (when left out) goes on training it, and `adapter`
    must be as it was there; `Merge` merges it into the base model, and a new adapter begins."""

    rules = (
        *Model.rules,
        Rule(
            "!has(self.parentAdapter) || self.uri.startsWith('finetunejob://')",
            "parentAdapter is for models of an earlier job (finetunejob://)",
            lambda model: model.parent_adapter is None or model.uri.startswith("finetunejob://"),
        ),
    )


class WarmStart(ApiModel):
    """What `finetunejob://` stood for when the job began; later changes of the earlier job do not matter."""

    job: ObjectName
    """The earlier FineTuneJob."""
    model: Model
    """The base model of its adapter, or the whole model that it made."""
    artifact: Artifact
    """What it made; the trainer checks the digest."""
    parent_adapter: ParentAdapter | None = None
    """What becomes of its adapter; nothing where it made a whole model."""
