"""Where the figures of a training are sent while it runs."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.hosts import DOTTED_HOST, METADATA_HOST, NUMERIC_HOST, is_metadata_url
from finetune_api.model import ApiModel, Rule
from finetune_api.references import SecretRef

WANDB_KEYS = ("WANDB_API_KEY",)
"""Keys of the Secret for W&B, which are also the variables that its library reads."""
MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""The same for MLflow: a user with a password, or a token."""


class TensorBoard(ApiModel):
    """Event files for TensorBoard, in `tensorboard/` of the job's directory."""


class Wandb(ApiModel):
    """A run at Weights & Biases."""

    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
    """The project."""
    entity: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)] | None = None
    """User or team that the project belongs to; without it the one that the key belongs to."""
    mode: Literal["Online", "Offline"] = "Online"
    """`Offline` sends nothing: the run's files are in `wandb/` of the job's directory, for `wandb sync`."""
    secret_ref: SecretRef | None = None
    """Secret with the key `WANDB_API_KEY`."""

    rules = (
        Rule(
            "self.mode == 'Offline' || has(self.secretRef)",
            "wandb needs a secretRef to be online",
            lambda wandb: wandb.mode == "Offline" or wandb.secret_ref is not None,
        ),
    )


class Mlflow(ApiModel):
    """A run on an MLflow server."""

    tracking_uri: Annotated[
        str,
        Field(
            pattern=r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$",
            max_length=512,
        ),
    ]
    """The server: `http://host:port` or `https://host`."""
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ /-]*$", max_length=128)]
    """Name of the experiment, which is made where it is missing."""
    secret_ref: SecretRef | None = None
    """Secret with the keys `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`."""

    rules = (
        Rule(
            " && ".join(
                (
                    f"(!self.trackingUri.matches('{NUMERIC_HOST}') || self.trackingUri.matches('{DOTTED_HOST}'))",
                    f"!self.trackingUri.matches('{METADATA_HOST}')",
                )
            ),
            "trackingUri: name a host, or write its address as four numbers; a cloud's metadata service is none",
            lambda mlflow: not is_metadata_url(mlflow.tracking_uri),
        ),
    )


class Tracking(ApiModel):
    """Where the figures of the training are sent. A tracker that fails is given up; the training goes on."""

    tensor_board: TensorBoard | None = None
    """Event files for TensorBoard."""
    wandb: Wandb | None = None
    """Weights & Biases."""
    mlflow: Mlflow | None = None
    """MLflow."""
