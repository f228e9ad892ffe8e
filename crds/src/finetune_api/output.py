"""Where the results of a FineTuneJob go: to a claim, and once they are proven to a bucket and to a hub."""

from finetune_api.model import ApiModel
from finetune_api.references import SecretRef
from finetune_api.uris import BucketUri, OutputUri, RepositoryUri


class Bucket(ApiModel):
    """A prefix in a bucket; each job has a directory of its own below it."""

    uri: BucketUri
    """`s3://bucket/prefix`."""
    secret_ref: SecretRef
    """Secret with keys that may write there."""


class HubRepository(ApiModel):
    """A model's repository on the hub; each job is a commit."""

    uri: RepositoryUri
    """`hf://org/name`."""
    secret_ref: SecretRef
    """Secret with a token that may write there."""
    private: bool = True
    """Whether the repository is private, if it does not exist yet."""


class Output(ApiModel):
    """Where the results go, and in which forms."""

    uri: OutputUri | None = None
    """A claim and a directory on it, `pvc://claim/path`; without it the claim that the operator makes."""
    merged: bool = False
    """Whether the proven adapter is also merged into the base model's weights, for programs that load no adapters."""
    bucket: Bucket | None = None
    """Where the proven result is copied to."""
    hub: HubRepository | None = None
    """Where the proven result is pushed to."""

    @property
    def is_exported(self) -> bool:
        """Whether anything is left to do with a result once it is proven."""
        return self.merged or self.bucket is not None or self.hub is not None
