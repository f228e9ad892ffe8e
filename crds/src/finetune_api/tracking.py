"""Experiment trackers, which receive the metrics of a training while it runs."""

from typing import Annotated, Literal

from finetune_api.hosts import DOTTED_HOST, METADATA_HOST, NUMERIC_HOST, is_metadata_url
from finetune_api.model import ApiModel, Rule
from finetune_api.references import SecretRef
from finetune_api.texts import Text

WANDB_KEYS = ("WANDB_API_KEY",)
"""Keys of the Secret for W&B, which are also the environment variables that its library reads."""
MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""The same for MLflow: a user with a password, or a token."""
WandbName = Annotated[
    str,
    Text(
        r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "use letters, digits, dots, dashes and underscores, such as support-bot", 128
    ),
]


class TensorBoard(ApiModel):
    """Writes event files for TensorBoard to `tensorboard/` in the job's directory."""


class Wandb(ApiModel):
    """Logs a run to Weights & Biases."""

    project: WandbName
    """Name of the project."""
    entity: WandbName | None = None
    """User or team that owns the project. Default: the default entity of the API key."""
    mode: Literal["Online", "Offline"] = "Online"
    """`Online` sends the metrics to the server. `Offline` writes the run to `wandb/` in the job's directory, for
    `wandb sync`."""
    secret_ref: SecretRef | None = None
    """Secret with the key `WANDB_API_KEY`. Required if `mode` is `Online`."""

    rules = (
        Rule(
            "self.mode == 'Offline' || has(self.secretRef)",
            "secretRef is required if mode is Online",
            lambda wandb: wandb.mode == "Offline" or wandb.secret_ref is not None,
        ),
    )


class Mlflow(ApiModel):
    """Logs a run to an MLflow server."""

    tracking_uri: Annotated[
        str,
        Text(
            r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$",
            "use http://host:port or https://host, with or without a path",
            512,
        ),
    ]
    """URL of the tracking server: `http://host:port` or `https://host`."""
    experiment: Annotated[
        str,
        Text(
            r"^[A-Za-z0-9][A-Za-z0-9._ /-]*$",
            "use letters, digits, spaces, dots, dashes, underscores and slashes, such as teams/support-bot",
            128,
        ),
    ]
    """Name of the experiment. It is created if it does not exist."""
    secret_ref: SecretRef | None = None
    """Secret with the keys `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`.
    Default: no authentication."""

    rules = (
        Rule(
            " && ".join(
                (
                    f"(!self.trackingUri.matches('{NUMERIC_HOST}') || self.trackingUri.matches('{DOTTED_HOST}'))",
                    f"!self.trackingUri.matches('{METADATA_HOST}')",
                )
            ),
            "trackingUri: use a host name or an address of four decimal numbers, and not a cloud's metadata service",
            lambda mlflow: not is_metadata_url(mlflow.tracking_uri),
        ),
    )


class Tracking(ApiModel):
    """Experiment trackers that receive the metrics. If a tracker fails, the training continues without it."""

    tensor_board: TensorBoard | None = None
    """Event files for TensorBoard in the job's directory. Default: none."""
    wandb: Wandb | None = None
    """A run at Weights & Biases. Default: none."""
    mlflow: Mlflow | None = None
    """A run on an MLflow server. Default: none."""
