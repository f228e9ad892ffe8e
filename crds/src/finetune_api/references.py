"""References to other objects in the namespace."""

from typing import Annotated

from finetune_api.model import ApiModel
from finetune_api.texts import DASHED, DASHED_MESSAGE, Text

ObjectName = Annotated[str, Text(DASHED, DASHED_MESSAGE, 63)]
ModelName = Annotated[
    str,
    Text(
        r"^[a-z0-9]+([._-][a-z0-9]+)*$",
        "use lowercase letters and digits, with single dots, dashes or underscores between them, such as support-bot",
        48,
    ),
]
"""A public model name, which clients send as `model`."""
BASE_NAME: ModelName = "base"
"""The model name under which a server serves its base model."""


class SecretRef(ApiModel):
    """A Secret in the same namespace. The kubelet passes it to the pod; the operator never reads it."""

    name: ObjectName
    """Name of the Secret. Its keys for `hf://`: `HF_TOKEN`; for `s3://`: `AWS_ACCESS_KEY_ID` and
    `AWS_SECRET_ACCESS_KEY`, optionally `AWS_SESSION_TOKEN`, `AWS_ENDPOINT_URL` and `AWS_REGION`; for `https://`:
    `HTTPS_TOKEN`, a bearer token. Trackers and API keys have their own keys."""
