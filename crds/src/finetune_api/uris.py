"""Where models, data and results live: the schemes that the API accepts, and their parts.

Only this list of schemes exists. Nothing here touches a network or a file.
"""

from dataclasses import dataclass
from typing import Literal

Scheme = Literal["hf", "s3", "https", "pvc", "configmap", "finetunejob"]

DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._=-]*"
_PATH = rf"{_SEGMENT}(/{_SEGMENT})*"
_REPOSITORY = rf"{_SEGMENT}/{_SEGMENT}"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_HTTPS = r"https://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9_%~+@][A-Za-z0-9._=%~+@-]*)+"
_S3 = rf"s3://{_BUCKET}(/{_PATH})?"

MODEL_URI = rf"^(hf://{_REPOSITORY}|{_S3}|pvc://{DNS_LABEL}/{_PATH})$"
JOB_MODEL_URI = rf"^(hf://{_REPOSITORY}|{_S3}|pvc://{DNS_LABEL}/{_PATH}|finetunejob://{DNS_LABEL})$"
DATA_URI = (
    rf"^(hf://{_REPOSITORY}(/{_PATH})?|{_S3}|{_HTTPS}|pvc://{DNS_LABEL}/{_PATH}|configmap://{DNS_LABEL}/{_SEGMENT})$"
)
OUTPUT_URI = rf"^pvc://{DNS_LABEL}(/{_PATH})?$"


@dataclass(frozen=True)
class Uri:
    """The parts of a URI: `pvc://models/base` is scheme `pvc`, authority `models`, path `base`.

    The authority of `hf` is the repository (`org/name`), that of `s3` the bucket, that of `https` the host with its
    port, that of `pvc` the claim, that of `configmap` and `finetunejob` the object's name. The
    path is empty or relative and never leaves its root.
    """

    scheme: Scheme
    authority: str
    path: str

    def __str__(self) -> str:
        """Return the URI as it is written in a manifest."""
        return f"{self.scheme}://{self.authority}" + (f"/{self.path}" if self.path else "")


def parse_uri(uri: str) -> Uri:
    """Take a URI apart that one of the patterns of this module has accepted.

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
