"""Identifies clients by the API keys of a mounted Secret, and limits what each key may request."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.access import KeyPolicy

from finetune_serving.gateway.errors import RequestError


def read_keys(directory: Path) -> dict[str, bytes]:
    """Return the SHA-256 digest of each key by the key's name: the name of its file in the mounted Secret.

    The kubelet's own entries, which begin with two dots, are skipped.

    Raises:
        OSError: the directory cannot be read.
    """
    return {
        path.name: hashlib.sha256(path.read_bytes().strip()).digest()
        for path in sorted(directory.iterdir())
        if not path.name.startswith("..")
    }


@dataclass
class _TokenBucket:
    """Rate limit of one key."""

    tokens: float
    """Requests that are allowed now."""
    updated: float
    """Time of the last update, in seconds of the monotonic clock."""


@dataclass
class Access:
    """The keys of one server and their limits. No I/O: the clock is an argument."""

    keys: dict[str, bytes] | None = None
    """SHA-256 digest of each key by its name; None if the server needs none."""
    policies: dict[str, KeyPolicy] = field(default_factory=dict)
    """Restrictions by the key's name."""
    _buckets: dict[str, _TokenBucket] = field(default_factory=dict)

    def set_policies(self, policies: Sequence[KeyPolicy]) -> None:
        """Replace the restrictions of all keys."""
        self.policies = {policy.name: policy for policy in policies}

    def identify(self, authorization: str) -> str:
        """Return the name of the key in an `Authorization` header; empty if the server needs no key.

        Every key is compared in constant time, so that the duration reveals nothing.

        Raises:
            RequestError: the key is missing or unknown.
        """
        if self.keys is None:
            return ""
        kind, _, token = authorization.partition(" ")
        token_digest = hashlib.sha256(token.strip().encode()).digest()
        names = [name for name, digest in self.keys.items() if hmac.compare_digest(token_digest, digest)]
        if kind.lower() != "bearer" or not token.strip() or not names:
            message = "missing or invalid API key: send a key of this server as Authorization: Bearer <key>"
            raise RequestError(401, message, code="invalid_api_key")
        return names[0]

    def filter_models(self, key: str, models: Sequence[str]) -> list[str]:
        """Return those public model names that a key may request."""
        policy = self.policies.get(key)
        return [name for name in models if policy is None or policy.models is None or name in policy.models]

    def admit(self, key: str, model: str, now: float) -> None:
        """Check a request against the key's restrictions, and count it towards the key's rate limit.

        Args:
            key: name of the request's key.
            model: public model name of the request, without a version.
            now: seconds of the monotonic clock.

        Raises:
            RequestError: the key may not request the model, or its rate limit is exceeded.
        """
        policy = self.policies.get(key)
        if policy is None:
            return
        if not self.filter_models(key, [model]):
            message = f"the API key {key} has no access to the model {model[:100]!r}"
            raise RequestError(403, message, param="model")
        if policy.requests_per_minute is None:
            return
        capacity, rate = float(policy.requests_per_minute), policy.requests_per_minute / 60
        bucket = self._buckets.setdefault(key, _TokenBucket(capacity, now))
        bucket.tokens = min(capacity, bucket.tokens + (now - bucket.updated) * rate)
        bucket.updated = now
        if bucket.tokens < 1:
            retry_after = max(1, round((1 - bucket.tokens) / rate))
            message = (
                f"the API key {key} is limited to {policy.requests_per_minute} requests per minute:"
                f" try again in {retry_after} s"
            )
            raise RequestError(429, message, code="rate_limit_exceeded", retry_after=retry_after)
        bucket.tokens -= 1
