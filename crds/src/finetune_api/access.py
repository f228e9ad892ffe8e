"""Access to a server: API keys, rate limits and limits of a request."""

from typing import Annotated

from pydantic import Field

from finetune_api.model import ApiModel, Rule
from finetune_api.references import SecretRef
from finetune_api.texts import Text

KeyName = Annotated[
    str,
    Text(
        r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
        "use letters and digits, with dots, dashes or underscores inside, such as team-a",
        63,
    ),
]


class KeyPolicy(ApiModel):
    """Allowed models and rate limit of one API key."""

    name: KeyName
    """Key of the Secret that holds the API key."""
    models: Annotated[list[Annotated[str, Field(max_length=63)]], Field(min_length=1, max_length=64)] | None = None
    """Model names that the API key has access to. Default: all."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Maximum number of requests per minute at each pod, and of requests in one burst. Default: no limit."""


class Auth(ApiModel):
    """API keys, each of which is a key of one Secret. Clients send `Authorization: Bearer <value>`."""

    secret_ref: SecretRef
    """Secret with the API keys. Changes take effect without a restart."""
    keys: Annotated[list[KeyPolicy], Field(max_length=64)] = []
    """Restrictions of API keys. A key of the Secret that is not listed here has none."""

    rules = (
        Rule(
            "self.keys.all(key, self.keys.exists_one(other, other.name == key.name))",
            "keys: each name must be unique",
            lambda auth: len({key.name for key in auth.keys}) == len(auth.keys),
        ),
    )


class RequestLimits(ApiModel):
    """Limits of a single request."""

    max_body_bytes: Annotated[int, Field(ge=1024, le=256 << 20)] = 8 << 20
    """Maximum size of the request body in bytes."""
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] | None = None
    """Maximum number of tokens of an answer. A request for more is refused; a request without a number gets this one.
    Default: no limit."""
