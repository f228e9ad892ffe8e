"""Where a FineTuneJob writes its results: a claim, and after its gates have passed a bucket and the Hub."""

from finetune_api.model import ApiModel
from finetune_api.references import SecretRef
from finetune_api.uris import BucketUri, OutputUri, RepositoryUri


class Bucket(ApiModel):
    """A prefix in a bucket. Each job writes to its own directory below it."""

    uri: BucketUri
    """Location in the bucket: `s3://bucket/prefix`."""
    secret_ref: SecretRef
    """Secret with credentials that can write to the bucket."""


class HubRepository(ApiModel):
    """A model repository on the Hugging Face Hub. Each job is one commit."""

    uri: RepositoryUri
    """Repository: `hf://org/name`."""
    secret_ref: SecretRef
    """Secret with a token that can write to the repository."""
    private: bool = True
    """Whether the repository is created as private. Ignored if it exists already."""


class Output(ApiModel):
    """Where the results are written, and in which forms."""

    uri: OutputUri | None = None
    """PersistentVolumeClaim and directory for the results: `pvc://claim/path`. Default: the claim `finetune-artifacts`,
    which the operator creates."""
    merged: bool = False
    """Whether to also merge the adapter into the base model's weights after the gates have passed, for programs that
    cannot load adapters."""
    bucket: Bucket | None = None
    """Bucket to which the result is copied after the gates have passed. Default: none."""
    hub: HubRepository | None = None
    """Repository on the Hugging Face Hub to which the result is pushed after the gates have passed. Default: none."""

    @property
    def is_exported(self) -> bool:
        """Whether a result that has passed its gates must be merged, copied or pushed."""
        return self.merged or self.bucket is not None or self.hub is not None
