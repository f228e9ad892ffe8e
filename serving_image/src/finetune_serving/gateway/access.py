"""Tells who asks by the API keys of a mounted Secret, and how often each may."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.access import KeyPolicy

from finetune_serving.gateway.openai_messages import RequestError


def read_keys(directory: Path) -> dict[str, bytes]:
    """Return the SHA-256 of each key, by its name. The kubelet swaps the files in at once; names of its own have dots.

    Raises:
        OSError: the directory cannot be read.
    """
    return {
        path.name: hashlib.sha256(path.read_bytes().strip()).digest()
        for path in sorted(directory.iterdir())
        if not path.name.startswith("..")
    }


@dataclass
class _Bucket:
    """What is left of a key's requests."""

    left: float
    updated: float


@dataclass
class Access:
    """The keys of one server and their limits. Pure: the clock is an argument."""

    keys: dict[str, bytes] | None = None
    """SHA-256 of each key by its name; None where the server asks for none."""
    policies: dict[str, KeyPolicy] = field(default_factory=dict)
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def limit(self, policies: Sequence[KeyPolicy]) -> None:
        """Take over the limits of keys."""
        self.policies = {policy.name: policy for policy in policies}

    def identify(self, authorization: str) -> str:
        """Return the name of the key in an `Authorization` header; empty where the server asks for none.

        Every key is compared, in constant time, so that the time tells nothing.

        Raises:
            RequestError: there is none, or nobody knows it.
        """
        if self.keys is None:
            return ""
        kind, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.strip().encode()).digest()
        found = [name for name, digest in self.keys.items() if hmac.compare_digest(given, digest)]
        if kind.lower() != "bearer" or not token.strip() or not found:
            raise RequestError(401, "authentication_error", "give an API key of this server: Authorization: Bearer …")
        return found[0]

    def allowed(self, key: str, models: Sequence[str]) -> list[str]:
        """Return those of some public names that a key may ask for."""
        policy = self.policies.get(key)
        return [name for name in models if policy is None or policy.models is None or name in policy.models]

    def admit(self, key: str, model: str, now: float) -> None:
        """Let a request pass, and count it.

        Args:
            key: the name of its key.
            model: the public name that it asks for, without a version.
            now: seconds of the monotonic clock.

        Raises:
            RequestError: the key may not ask for that model, or not again so soon.
        """
        policy = self.policies.get(key)
        if policy is None:
            return
        if not self.allowed(key, [model]):
            raise RequestError(403, "permission_error", f"the key {key} may not ask for {model[:100]!r}")
        if policy.requests_per_minute is None:
            return
        most, rate = float(policy.requests_per_minute), policy.requests_per_minute / 60
        bucket = self._buckets.setdefault(key, _Bucket(most, now))
        bucket.left = min(most, bucket.left + (now - bucket.updated) * rate)
        bucket.updated = now
        if bucket.left < 1:
            message = f"the key {key} may ask {policy.requests_per_minute} times in a minute: try again later"
            raise RequestError(429, "rate_limit_error", message, retry_after=max(1, round((1 - bucket.left) / rate)))
        bucket.left -= 1
