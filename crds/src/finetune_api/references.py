"""References to other objects in the namespace."""

from typing import Annotated

from pydantic import Field

from finetune_api.model import ApiModel

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", min_length=1, max_length=48)]
"""A public model name, which clients ask for."""
BASE_NAME: ModelName = "base"
"""The name under which a server's base model answers."""


class SecretRef(ApiModel):
    """A Secret in the same namespace. The kubelet hands it to the pod; the operator never reads it."""

    name: ObjectName
    """Name of the Secret. For the hub its key `HF_TOKEN` holds the token; for `s3://` it has `AWS_ACCESS_KEY_ID` and
    `AWS_SECRET_ACCESS_KEY`, and where they are needed `AWS_SESSION_TOKEN`, `AWS_ENDPOINT_URL` and `AWS_REGION`;
    for `https://` its key `HTTPS_TOKEN` holds a bearer token. Trackers name their own keys."""
