"""Hands images to containerd, blob by blob and only what it lacks."""

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from cluster.containerd import SOCKET, run_ctr
from cluster.layout import BIN, IMAGES, ClusterError, tell

LAYOUT = IMAGES / "oci"
"""The images as an OCI image layout."""


def load_image(name: str) -> None:
    """Import one image, without the blobs that containerd has."""
    index = json.loads((LAYOUT / "index.json").read_text())
    entry = next(
        one for one in index["manifests"] if one.get("annotations", {}).get("org.opencontainers.image.ref.name") == name
    )
    present = dict(_loaded_images())
    if present.get(name) == entry["digest"]:
        return
    tell(f"loading {name}")
    manifest = json.loads(_blob(entry["digest"]).read_text())
    wanted = [entry["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    known = set(run_ctr("content", "list", "-q").split())
    entry["annotations"]["io.containerd.image.name"] = name
    importing = subprocess.Popen(
        [BIN / "ctr", "--address", SOCKET, "-n", "k8s.io", "images", "import", "--local", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    errors = ""
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", importing.stdin), mode="w|") as archive:
            _add_text(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))
            _add_text(archive, "index.json", json.dumps(index | {"manifests": [entry]}))
            for digest in dict.fromkeys(wanted):
                if digest not in known:
                    archive.add(_blob(digest), f"blobs/sha256/{digest.removeprefix('sha256:')}")
    except BrokenPipeError:
        errors = "it stopped reading; "
    _, stderr = importing.communicate()
    if importing.returncode != 0:
        raise ClusterError(f"containerd does not take {name}: {errors}{stderr.decode()[-2000:]}")


def _loaded_images() -> Iterable[tuple[str, str]]:
    for line in run_ctr("images", "list").splitlines()[1:]:
        fields = line.split()
        yield fields[0], fields[2]


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
