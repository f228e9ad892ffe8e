"""Loads images from the OCI layout into containerd; copies only missing blobs."""

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

from cluster.containerd import SOCKET, run_ctr
from cluster.layout import BIN, IMAGES, ClusterError, log_progress

LAYOUT = IMAGES / "oci"
"""The images as an OCI image layout."""
_NAME = "org.opencontainers.image.ref.name"


def load_image(name: str) -> None:
    """Load one image into containerd unless it has it; skip the layers that other loaded images share.

    Raises:
        ClusterError: containerd refused the image.
    """
    index, entries = _read_layout()
    loaded = {image for image, digest in _loaded_images() if image in entries and entries[image]["digest"] == digest}
    if name in loaded:
        return
    log_progress(f"loading {name}")
    entry = entries[name]
    present = {layer for image in loaded for layer in _layers(entries[image])}
    needed = [entry["digest"], _manifest(entry)["config"]["digest"], *_layers(entry)]
    entry["annotations"]["io.containerd.image.name"] = name
    command = [str(BIN / "ctr"), "--address", str(SOCKET), "-n", "k8s.io"]
    importing = subprocess.Popen(
        [*command, "images", "import", "--local", "--discard-unpacked-layers", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    errors = ""
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", importing.stdin), mode="w|") as archive:
            _add_text(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))
            _add_text(archive, "index.json", json.dumps(index | {"manifests": [entry]}))
            for digest in dict.fromkeys(needed):
                if digest not in present:
                    archive.add(_blob(digest), f"blobs/sha256/{digest.removeprefix('sha256:')}")
    except BrokenPipeError:
        errors = "it closed its input; "
    _, stderr = importing.communicate()
    if importing.returncode != 0:
        raise ClusterError(f"containerd refused the image {name}: {errors}{stderr.decode()[-2000:]}")


def prune_layout() -> None:
    """Remove the entries and blobs of replaced images from the layout."""
    index, entries = _read_layout()
    used = {entry["digest"] for entry in entries.values()}
    for entry in entries.values():
        used |= {_manifest(entry)["config"]["digest"], *_layers(entry)}
    (LAYOUT / "index.json").write_text(json.dumps(index | {"manifests": list(entries.values())}))
    for blob in (LAYOUT / "blobs/sha256").iterdir():
        if f"sha256:{blob.name}" not in used:
            blob.unlink()


def _read_layout() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the index, and its entries by image name. Entries of replaced images have no name and are left out."""
    index = json.loads((LAYOUT / "index.json").read_text())
    entries = {entry.get("annotations", {}).get(_NAME): entry for entry in index["manifests"]}
    return index, {name: entry for name, entry in entries.items() if name}


def _loaded_images() -> Iterable[tuple[str, str]]:
    for line in run_ctr("images", "list").splitlines()[1:]:
        fields = line.split()
        yield fields[0], fields[2]


def _manifest(entry: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(_blob(entry["digest"]).read_text()))


def _layers(entry: dict[str, Any]) -> list[str]:
    return [layer["digest"] for layer in _manifest(entry)["layers"]]


def _blob(digest: str) -> Path:
    return LAYOUT / "blobs/sha256" / digest.removeprefix("sha256:")


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        size = file.tell()
        file.seek(0)
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, file)
