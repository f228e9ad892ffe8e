"""The objects of local runs: JSON files below a directory, in the place of a cluster's API server."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.manifests import Manifest

NAMESPACE = "local"


@dataclass(frozen=True)
class Store:
    """The objects below a directory: `state/<kind>/<name>.json`."""

    root: Path

    def get(self, kind: str, name: str) -> Manifest | None:
        """Return an object; None if it does not exist."""
        path = self._path(kind, name)
        return dict(json.loads(path.read_text())) if path.exists() else None

    def list(self, kind: str) -> Iterator[Manifest]:
        """Yield the objects of a kind, ordered by name."""
        for path in sorted((self.root / "state" / kind.lower()).glob("*.json")):
            yield json.loads(path.read_text())

    def put(self, manifest: Manifest) -> Manifest:
        """Write an object, and return it. A new one gets a namespace, a generation and a uid."""
        metadata = {"namespace": NAMESPACE, "generation": 1, "uid": str(uuid.uuid4())} | manifest["metadata"]
        manifest = manifest | {"metadata": metadata}
        write_atomically(self._path(manifest["kind"], metadata["name"]), json.dumps(manifest, indent=1))
        return manifest

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, if it exists."""
        self._path(kind, name).unlink(missing_ok=True)

    def _path(self, kind: str, name: str) -> Path:
        return self.root / "state" / kind.lower() / f"{name}.json"


def write_atomically(path: Path, text: str) -> None:
    """Write a file that others read at any time: they see the earlier text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
