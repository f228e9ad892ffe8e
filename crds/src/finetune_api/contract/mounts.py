"""Where things lie inside the pods: the one place on which operator, trainer and server agree."""

from pathlib import Path, PurePath, PurePosixPath
from typing import Literal

from finetune_api.uris import Scheme, parse_uri

CLAIMS = PurePosixPath("/claims")
"""Each claim is mounted below by its name."""
CONFIG_MAPS = PurePosixPath("/configmaps")
"""Each ConfigMap with data is mounted below by its name."""
JOB_FILE = PurePosixPath("/etc/finetune/job/job.json")
"""The FineTuneJob as it was applied."""
ROUTES_FILE = PurePosixPath("/etc/finetune/routes/routes.json")
"""The routes of a server."""
KEYS = PurePosixPath("/etc/finetune/keys")
"""The API keys of a server, a file for each."""
MODEL_CACHE = PurePosixPath("/model-cache")
"""The claim on which a server keeps what it fetches."""
SCRATCH = PurePosixPath("/scratch")
"""An emptyDir, the only other place that may be written: HOME, caches, temporary files."""

Source = Literal["MODEL", "TRAIN", "VALIDATION", "BUCKET", "HUB"]
"""What has a Secret: the base model, `dataset.train`, `dataset.validation`, `output.bucket`, `output.hub`."""
MODEL: Source = "MODEL"
TRAIN: Source = "TRAIN"
VALIDATION: Source = "VALIDATION"
BUCKET: Source = "BUCKET"
HUB: Source = "HUB"

REQUIRED_KEYS: dict[Scheme, tuple[str, ...]] = {
    "hf": ("HF_TOKEN",),
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "https": ("HTTPS_TOKEN",),
}
"""Keys that the Secret of a source must have."""
OPTIONAL_KEYS: dict[Scheme, tuple[str, ...]] = {
    "s3": ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"),
}
"""Keys that it may have."""

HTTPS_HOSTS = "FINETUNE_HTTPS_HOSTS"
"""Environment variable with the hosts that `https://` data may come from, with commas between."""

DEFAULT_CLAIM = "finetune-artifacts"
"""The claim that the operator makes in a namespace where a job names no `output`."""


def credential_variable(source: Source, key: str) -> str:
    """Return the environment variable with a key of a source's Secret.

    Each source has its own, so that a credential is sent for nothing but what its Secret was named for. The model's
    token has the name that the hub's own client reads.
    """
    return key if (source, key) == (MODEL, "HF_TOKEN") else f"{key}_{source}"


def path_of(uri: str, root: Path = Path("/")) -> Path:
    """Return where a `pvc://` or `configmap://` URI lies inside a pod.

    Args:
        uri: of a file or a directory.
        root: directory below which claims and ConfigMaps are mounted; `/` in a pod.

    Raises:
        ValueError: the URI is of a scheme that is fetched, not mounted.
    """
    parsed = parse_uri(uri)
    match parsed.scheme:
        case "pvc":
            return below(root, CLAIMS / parsed.authority / parsed.path)
        case "configmap":
            return below(root, CONFIG_MAPS / parsed.authority / parsed.path)
    raise ValueError(f"{uri} is not mounted into pods")


def below(root: Path, path: PurePath) -> Path:
    """Return an absolute path of a pod as it is below another root."""
    return root / str(path).lstrip("/")
