"""Sends requests to the API server as a user, without a client that validates them."""

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FINETUNE = "/apis/finetune.dev/v1alpha1/namespaces"


@dataclass(frozen=True)
class Answer:
    """An answer of the API server."""

    code: int
    body: dict[str, Any]

    @property
    def is_refused(self) -> bool:
        """Whether the API server refused the request."""
        return self.code >= 400

    @property
    def message(self) -> str:
        """The message of the answer, at most 300 characters."""
        return str(self.body.get("message", self.body))[:300]


class Caller:
    """A connection of one user."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        url = urlsplit(cluster["server"])
        self._connection = http.client.HTTPSConnection(url.hostname or "", url.port, context=context, timeout=30)
        self._headers = {"Authorization": f"Bearer {user['token']}", "Accept": "application/json"}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        **headers: str,
    ) -> Answer:
        """Send a request; keyword arguments are more headers, with `_` for `-`."""
        text = None if body is None else json.dumps(body).encode()
        extra_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, text, self._headers | {"Content-Type": content_type} | extra_headers)
        response = self._connection.getresponse()
        answer = response.read()
        try:
            parsed = json.loads(answer)
        except ValueError:
            parsed = {"message": answer.decode(errors="replace")}
        return Answer(response.status, parsed)

    def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> Answer:
        """Create an object of any kind whose plural `path_of` can build."""
        return self.call("POST", path_of(manifest) + ("?dryRun=All" if dry_run else ""), manifest)

    def get(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return the current object.

        Raises:
            AssertionError: it does not exist.
        """
        current = self.find(manifest)
        assert current is not None, f"{manifest['kind']} {manifest['metadata']['name']} does not exist"
        return current

    def find(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """Return the current object; None where it does not exist."""
        answer = self.call("GET", f"{path_of(manifest)}/{manifest['metadata']['name']}")
        assert answer.code in (200, 404), answer.message
        return answer.body if answer.code == 200 else None

    def list(self, path: str) -> list[dict[str, Any]]:
        """Return the objects of a list."""
        answer = self.call("GET", path)
        assert answer.code == 200, answer.message
        return list(answer.body["items"])


def path_of(manifest: dict[str, Any]) -> str:
    """Return the path of the objects of a manifest's kind and namespace."""
    group = manifest["apiVersion"]
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    kind = manifest["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"{root}/namespaces/{manifest['metadata']['namespace']}/{plural}"
