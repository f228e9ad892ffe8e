"""Warm start: a job that starts from the result of a parent FineTuneJob."""

from typing import Literal

from finetune_api.artifact import Artifact, Digest
from finetune_api.model import ApiModel, Rule
from finetune_api.modelserver import Model
from finetune_api.references import ObjectName
from finetune_api.uris import JobModelUri

ParentAdapter = Literal["Train", "Merge", "Keep"]


class JobModel(Model):
    """The model that a FineTuneJob starts from."""

    uri: JobModelUri
    """Location of the model: `hf://org/name`, `s3://bucket/prefix` or `pvc://claim/path`. `finetunejob://name` starts
    from the result of a parent FineTuneJob in the namespace, once it has passed its gates; see `parentAdapter`."""
    parent_adapter: ParentAdapter | None = None
    """What to do with the parent job's adapter: `Train` continues to train it, and `adapter` must be the same as in the
    parent job; `Merge` merges it into the base model and trains a new adapter; `Keep` trains nothing: the result of the
    parent job is evaluated again, with other gates or held-out data, and served if it passes, even if it did not pass
    the gates of the parent job. Default: Train."""

    rules = (
        *Model.rules,
        Rule(
            "!has(self.parentAdapter) || self.uri.startsWith('finetunejob://')",
            "parentAdapter can only be set for the result of a parent job (finetunejob://)",
            lambda model: model.parent_adapter is None or model.uri.startswith("finetunejob://"),
        ),
        Rule(
            "!has(self.chatTemplate) || !self.uri.startsWith('finetunejob://')",
            "the result of a parent job (finetunejob://) keeps the chat template of the parent job: leave chatTemplate"
            " out",
            lambda model: model.chat_template is None or not model.uri.startswith("finetunejob://"),
        ),
    )


class WarmStart(ApiModel):
    """What `finetunejob://` referred to when the job started. Later changes of the parent job have no effect."""

    job: ObjectName
    """Name of the parent FineTuneJob."""
    model: Model
    """Base model of the parent's result, or the whole model that the parent produced if it is trained further."""
    artifact: Artifact
    """Result of the parent job. The trainer verifies its digest."""
    parent_adapter: ParentAdapter | None = None
    """What to do with the parent's adapter. For a parent that produced a whole model, `Keep` or not set."""
    thinking_off: bool | None = None
    """Whether a kept result was trained with thinking switched off. Left out if not."""
    chat_template: Digest | None = None
    """SHA-256 digest of `model.chatTemplate` in the parent job. The job uses the same content."""

    @property
    def is_kept(self) -> bool:
        """Whether the parent's result is the job's own result, and nothing is trained."""
        return self.parent_adapter == "Keep"
