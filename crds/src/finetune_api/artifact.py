"""What a training made: where it lies, and what tells that it is still the same."""

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
    """What was trained."""

    kind: ArtifactKind = "Adapter"
    """An adapter for the base model, or a whole model."""
    uri: ArtifactUri
    """Where it lies."""
    digest: Digest
    """SHA-256 over the names and contents of its files."""
    bytes: Bytes
    """Size of its files together; one that has grown is refused before it is read."""


class Incumbent(ApiModel):
    """What served under the job's model name when the evaluation began; later attempts judge the same."""

    job: Annotated[str, Field(max_length=63)] = ""
    """The FineTuneJob that trained it; empty where nothing served."""
    artifact: Artifact | None = None
    """What it trained."""


def describe_artifact(directory: Path, uri: str, kind: ArtifactKind = "Adapter") -> Artifact:
    """Return what lies in a directory.

    Raises:
        ValueError: a file is a symbolic link, whose content may change behind the digest.
    """
    return Artifact(kind=kind, uri=uri, digest=digest_directory(directory), bytes=measure_directory(directory))


def measure_directory(directory: Path) -> int:
    """Return the bytes of all files below, without reading them."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
