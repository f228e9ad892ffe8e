"""Artifacts of trainings: adapters or models with their location and digest."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.digest import digest_directory
from finetune_api.model import ApiModel
from finetune_api.uris import ArtifactUri

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0)]
ArtifactKind = Literal["Adapter", "Model"]


class Artifact(ApiModel):
    """A trained adapter or model."""

    kind: ArtifactKind = "Adapter"
    """`Adapter` for the base model, or a whole `Model`."""
    uri: ArtifactUri
    """Location of the artifact's directory: `pvc://claim/path`."""
    digest: Digest
    """SHA-256 digest of the names and contents of its files."""
    bytes: Bytes
    """Total size of its files in bytes. A directory that has grown is refused before it is read."""


class Incumbent(ApiModel):
    """The version that served under the job's model name when the evaluation started. Retries compare with the same."""

    job: Annotated[str, Field(max_length=63)] = ""
    """FineTuneJob that trained it. Empty if nothing served."""
    artifact: Artifact | None = None
    """Artifact of that version."""


def describe_artifact(directory: Path, uri: str, kind: ArtifactKind = "Adapter") -> Artifact:
    """Return the artifact in a directory, with its digest and size.

    Raises:
        ValueError: a file is a symbolic link, whose target can change without changing the digest.
    """
    return Artifact(kind=kind, uri=uri, digest=digest_directory(directory), bytes=measure_directory(directory))


def measure_directory(directory: Path) -> int:
    """Return the total size of all files below a directory in bytes, without reading them."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
