"""URIs of models, data and results: the schemes that the API accepts, their patterns and their parts. No I/O."""

from dataclasses import dataclass
from typing import Annotated, Literal

from finetune_api.texts import Text

Scheme = Literal["hf", "s3", "https", "pvc", "configmap", "finetunejob"]

DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._=-]*"
"""A name in a path."""
_PATH = rf"{SEGMENT}(/{SEGMENT})*"
_REPOSITORY = rf"{SEGMENT}/{SEGMENT}"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_HTTPS = r"https://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9_%~+@][A-Za-z0-9._=%~+@-]*)+"
_S3 = rf"s3://{_BUCKET}(/{_PATH})?"
_MAX_LENGTH = 512

_MODEL = rf"^(hf://{_REPOSITORY}|{_S3}|pvc://{DNS_LABEL}/{_PATH})$"
_JOB_MODEL = rf"^(hf://{_REPOSITORY}|{_S3}|pvc://{DNS_LABEL}/{_PATH}|finetunejob://{DNS_LABEL})$"
_DATA = rf"^(hf://{_REPOSITORY}(/{_PATH})?|{_S3}|{_HTTPS}|pvc://{DNS_LABEL}/{_PATH}|configmap://{DNS_LABEL}/{SEGMENT})$"
_CONFIG_MAP = rf"^configmap://{DNS_LABEL}/{SEGMENT}$"
_BUCKET_URI = rf"^{_S3}$"
_REPOSITORY_URI = rf"^hf://{_REPOSITORY}$"
_OUTPUT = rf"^pvc://{DNS_LABEL}(/{_PATH})?$"
_ARTIFACT = rf"^pvc://{DNS_LABEL}/{_PATH}$"
_MODEL_HINT = "use hf://org/name, s3://bucket/path or pvc://claim/path"
_JOB_MODEL_HINT = "use hf://org/name, s3://bucket/path, pvc://claim/path or finetunejob://name"
_DATA_HINT = (
    "use hf://org/name/path, s3://bucket/path, https://host/path, pvc://claim/path or configmap://name/key,"
    " without .. in the path"
)
_CONFIG_MAP_HINT = "use configmap://name/key"
_BUCKET_HINT = "use s3://bucket/path, without .. in the path"
_REPOSITORY_HINT = "use hf://org/name"
_OUTPUT_HINT = "use pvc://claim/path, without .. in the path"

ModelUri = Annotated[str, Text(_MODEL, _MODEL_HINT, _MAX_LENGTH)]
JobModelUri = Annotated[str, Text(_JOB_MODEL, _JOB_MODEL_HINT, _MAX_LENGTH)]
DataUri = Annotated[str, Text(_DATA, _DATA_HINT, _MAX_LENGTH)]
ConfigMapUri = Annotated[str, Text(_CONFIG_MAP, _CONFIG_MAP_HINT, _MAX_LENGTH)]
BucketUri = Annotated[str, Text(_BUCKET_URI, _BUCKET_HINT, _MAX_LENGTH)]
RepositoryUri = Annotated[str, Text(_REPOSITORY_URI, _REPOSITORY_HINT, _MAX_LENGTH)]
OutputUri = Annotated[str, Text(_OUTPUT, _OUTPUT_HINT, _MAX_LENGTH)]
ArtifactUri = Annotated[str, Text(_ARTIFACT, _OUTPUT_HINT, _MAX_LENGTH)]


@dataclass(frozen=True)
class Uri:
    """The parts of a URI: `pvc://models/base` is scheme `pvc`, authority `models`, path `base`.

    The authority of `hf` is the repository (`org/name`), that of `s3` the bucket, that of `https` the host with its
    port, that of `pvc` the claim, that of `configmap` and `finetunejob` the object's name. The
    path is empty or relative and has no `..`.
    """

    scheme: Scheme
    authority: str
    path: str

    def __str__(self) -> str:
        """Return the URI as in a manifest."""
        return f"{self.scheme}://{self.authority}" + (f"/{self.path}" if self.path else "")


def parse_uri(uri: str) -> Uri:
    """Return the parts of a URI that one of the patterns of this module has accepted.

    Raises:
        ValueError: the scheme is not one of `hf`, `s3`, `https`, `pvc`, `configmap`, `finetunejob`.
    """
    scheme, _, rest = uri.partition("://")
    match scheme:
        case "hf":
            parts = rest.split("/", 2)
            return Uri("hf", "/".join(parts[:2]), parts[2] if len(parts) > 2 else "")
        case "s3" | "https" | "pvc" | "configmap" | "finetunejob":
            authority, _, path = rest.partition("/")
            return Uri(scheme, authority, path)
    raise ValueError(f"{uri}: use hf://, s3://, https://, pvc://, configmap:// or finetunejob://")
