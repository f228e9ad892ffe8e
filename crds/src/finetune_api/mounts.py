"""Where things lie inside the pods: the one place on which operator, trainer and server agree."""

from pathlib import PurePosixPath

from finetune_api.uris import parse_uri

CLAIMS = PurePosixPath("/claims")
"""Each claim is mounted below by its name."""
CONFIG_MAPS = PurePosixPath("/configmaps")
"""Each ConfigMap with data is mounted below by its name."""
JOB_FILE = PurePosixPath("/etc/finetune/job/job.json")
"""The FineTuneJob as it was applied."""
ROUTES_FILE = PurePosixPath("/etc/finetune/routes/routes.json")
"""The routes of a server."""
SCRATCH = PurePosixPath("/scratch")
"""An emptyDir, the only other place that may be written: HOME, caches, temporary files."""

MODEL_TOKEN = "HF_TOKEN"
"""Environment variable with the hub's token for the base model; the name that the hub's own client reads."""
TRAIN_TOKEN = "HF_TOKEN_TRAIN"
"""The same for `dataset.train`: a token is sent for nothing but what its Secret was named for."""
VALIDATION_TOKEN = "HF_TOKEN_VALIDATION"
"""The same for `dataset.validation`."""

DEFAULT_CLAIM = "finetune-artifacts"
"""The claim that the operator makes in a namespace where a job names no `output`."""


def path_of(uri: str) -> PurePosixPath:
    """Return where a `pvc://` or `configmap://` URI lies inside a pod.

    Raises:
        ValueError: the URI is of a scheme that is fetched, not mounted.
    """
    parsed = parse_uri(uri)
    match parsed.scheme:
        case "pvc":
            return CLAIMS / parsed.authority / parsed.path
        case "configmap":
            return CONFIG_MAPS / parsed.authority / parsed.path
    raise ValueError(f"{uri} is not mounted into pods")
