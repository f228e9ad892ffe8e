"""Warm start: a job that starts from the result of a parent FineTuneJob."""

from typing import Literal

from finetune_api.artifact import Artifact
from finetune_api.model import ApiModel, Rule
from finetune_api.modelserver import Model
from finetune_api.references import ObjectName
from finetune_api.uris import JobModelUri

ParentAdapter = Literal["Train", "Merge"]


class JobModel(Model):
    """The model that a FineTuneJob starts from."""

    uri: JobModelUri
    """Location of the model: `hf://org/name`, `s3://bucket/prefix` or `pvc://claim/path`. `finetunejob://name` starts
    from the result of a parent FineTuneJob in the namespace, once it has passed its gates."""
    parent_adapter: ParentAdapter | None = None
    """What to do with the parent job's adapter: `Train` continues to train it, and `adapter` must be the same as in the
    parent job; `Merge` merges it into the base model and trains a new adapter. Default: Train."""

    rules = (
        *Model.rules,
        Rule(
            "!has(self.parentAdapter) || self.uri.startsWith('finetunejob://')",
            "parentAdapter can only be set for the result of a parent job (finetunejob://)",
            lambda model: model.parent_adapter is None or model.uri.startswith("finetunejob://"),
        ),
    )


class WarmStart(ApiModel):
    """What `finetunejob://` referred to when the job started. Later changes of the parent job have no effect."""

    job: ObjectName
    """Name of the parent FineTuneJob."""
    model: Model
    """Base model of the parent's adapter, or the whole model that the parent produced."""
    artifact: Artifact
    """Result of the parent job. The trainer verifies its digest."""
    parent_adapter: ParentAdapter | None = None
    """What to do with the parent's adapter. Not set if the parent produced a whole model."""
