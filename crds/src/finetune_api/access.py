"""Who may ask a server, for what, how often and how much."""

from typing import Annotated

from pydantic import Field

from finetune_api.model import ApiModel, Rule
from finetune_api.references import SecretRef

KeyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=63)]


class KeyPolicy(ApiModel):
    """What one API key may do."""

    name: KeyName
    """The Secret's key that holds it."""
    models: Annotated[list[Annotated[str, Field(max_length=63)]], Field(min_length=1, max_length=64)] | None = None
    """The model names that it may ask for; without it all of them."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests in a minute at each pod, as many at once at most; without it any number."""


class Auth(ApiModel):
    """API keys, each a key of one Secret: whoever sends `Authorization: Bearer <its value>` is that key."""

    secret_ref: SecretRef
    """The Secret. Its changes are taken over without a restart."""
    keys: Annotated[list[KeyPolicy], Field(max_length=64)] = []
    """Limits of keys; those that are not named here have none."""

    rules = (
        Rule(
            "self.keys.all(one, self.keys.exists_one(other, other.name == one.name))",
            "keys: each name once",
            lambda auth: len({one.name for one in auth.keys}) == len(auth.keys),
        ),
    )


class RequestLimits(ApiModel):
    """How much one request may ask for."""

    max_body_bytes: Annotated[int, Field(ge=1024, le=256 << 20)] = 8 << 20
    """Bytes of the body."""
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] | None = None
    """Tokens of an answer; a request for more is refused, one that names no number gets this one."""
