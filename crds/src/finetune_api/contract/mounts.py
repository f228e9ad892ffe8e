"""Mount paths and environment variables of the pods, shared by operator, trainer and server."""

from pathlib import Path, PurePath, PurePosixPath

from finetune_api.uris import Scheme, parse_uri

CLAIMS = PurePosixPath("/claims")
"""Directory of the PersistentVolumeClaims, each mounted under its name."""
CONFIG_MAPS = PurePosixPath("/configmaps")
"""Directory of the ConfigMaps with data, each mounted under its name."""
JOB_FILE = PurePosixPath("/etc/finetune/job/job.json")
"""File with the FineTuneJob, see `contract.jobfile`."""
ROUTES_FILE = PurePosixPath("/etc/finetune/routes/routes.json")
"""File with the routes of a server, see `contract.routes`."""
KEYS = PurePosixPath("/etc/finetune/keys")
"""Directory with the API keys of a server, one file per key."""
MODEL_CACHE = PurePosixPath("/model-cache")
"""Directory of the claim on which a server caches downloaded models."""
SCRATCH = PurePosixPath("/scratch")
"""An emptyDir for HOME, caches and temporary files: besides the claims the only writable directory."""

Source = str
"""A field that can reference a Secret, as the end of its environment variables: `model`, `dataset.train` or one of
`dataset.mix`, `dataset.validation`, `output.bucket` and `output.hub`."""
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
"""Required keys of a source's Secret."""
OPTIONAL_KEYS: dict[Scheme, tuple[str, ...]] = {
    "s3": ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"),
}
"""Optional keys of a source's Secret."""

HTTPS_HOSTS = "FINETUNE_HTTPS_HOSTS"
"""Environment variable with the hosts that are allowed for `https://` data, separated by commas."""

DEFAULT_CLAIM = "finetune-artifacts"
"""Name of the claim that the operator creates for jobs without `output.uri`."""


def train_source(index: int) -> Source:
    """Return the name of a source of training data, by its index in `dataset.mix`; that of `dataset.train` is 0."""
    return f"{TRAIN}_{index}" if index else TRAIN


def credential_variable(source: Source, key: str) -> str:
    """Return the name of the environment variable for a key of a source's Secret.

    Each source has its own variables, so that a credential is only sent for the source that references its Secret. The
    model's token has the name that the Hub's own client reads.
    """
    return key if (source, key) == (MODEL, "HF_TOKEN") else f"{key}_{source}"


def path_of(uri: str, root: Path = Path("/")) -> Path:
    """Return the path of a `pvc://` or `configmap://` URI inside a pod.

    Args:
        uri: of a file or a directory.
        root: directory below which claims and ConfigMaps are mounted; `/` in a pod.

    Raises:
        ValueError: the URI has a scheme that is downloaded, not mounted.
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
