"""Builds the images without a registry, and hands them to containerd, blob by blob and only what it lacks."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.containerd import PAUSE_IMAGE
from cluster.layout import CACHE, IMAGES, ROOT, ClusterError, digest_inputs, log_progress
from cluster.loading import LAYOUT, load_image, prune_layout
from cluster.packages import install_debian

_HERE = Path(__file__).parent
_BASES = _HERE / "bases"
_PYTHON = "finetune.dev/python:dev"
_CPU = "finetune.dev/cpu:dev"
_STORAGE = IMAGES / "storage"
_RUN_ROOT = "/run/finetune-buildah"
_ROOM = 22
"""GiB that the images take: as buildah has them, as blobs, and unpacked."""
_DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates,libnuma1,libgomp1"


@dataclass(frozen=True)
class Image:
    """One image of the project, and what it is made from."""

    name: str
    dockerfile: Path
    base: str
    sources: tuple[str, ...]
    arguments: tuple[str, ...] = ()


_IMAGES = (
    Image("finetune.dev/operator:dev", ROOT / "operator/Dockerfile", _PYTHON, ("crds", "operator")),
    Image(
        "finetune.dev/trainer:dev",
        ROOT / "trainer_image/Dockerfile",
        _CPU,
        ("crds", "pod_common", "trainer_image"),
        ("DEVICE=cpu",),
    ),
    Image(
        "finetune.dev/serving:dev",
        ROOT / "serving_image/Dockerfile",
        _CPU,
        ("crds", "pod_common", "serving_image"),
        ("DEVICE=cpu",),
    ),
)


def check_disk_space() -> None:
    """Refuse at once what would end for want of room: Kubernetes, which is built before images, takes ten minutes.

    Raises:
        ClusterError: the images were never built, and the disk has no room for them.
    """
    if not _recorded(_CPU):
        _require_room()


def build_bases() -> None:
    """Build the two bases, where their inputs changed."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    _build_python()
    _build_cpu()


def build_images() -> None:
    """Build the bases and the project's images, where their inputs changed; what they replace is removed."""
    install_debian()
    build_bases()
    for image in _IMAGES:
        inputs = digest_inputs(
            [image.dockerfile, ROOT / "install.sh", ROOT / "uv.lock", *_sources(image.sources)],
            _recorded(image.base),
        )
        if _recorded(image.name) == inputs:
            continue
        log_progress(f"building {image.name}")
        arguments = [f"--build-arg={one}" for one in (f"BASE={image.base}", *image.arguments)]
        _bud(image.name, image.dockerfile, ROOT, arguments)
        _record(image.name, inputs)
    prune_layout()
    _run([*_buildah(), "rmi", "--prune", "--force"], ROOT)


def load_pause_image() -> None:
    """Hand containerd the image that every pod begins with."""
    source = _HERE / "pause"
    inputs = digest_inputs([source / "main.go", _BASES / "pause.Dockerfile"], "")
    if _recorded(PAUSE_IMAGE) != inputs:
        IMAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=IMAGES) as context:
            _run(["go", "build", "-trimpath", "-o", f"{context}/pause", "main.go"], source, {"CGO_ENABLED": "0"})
            _bud(PAUSE_IMAGE, _BASES / "pause.Dockerfile", Path(context), [])
        _record(PAUSE_IMAGE, inputs)
    load_image(PAUSE_IMAGE)


def load_images() -> None:
    """Hand containerd the project's images; the bases first, so that their blobs go over once."""
    for name in (_PYTHON, _CPU, *(image.name for image in _IMAGES)):
        load_image(name)


def push_images(registry: str) -> None:
    """Push the project's images below a registry's path, each under a tag of its own content."""
    for name, values in build_chart_values(registry).items():
        image = f"finetune.dev/{name}:dev"
        target = f"{values['image']['repository']}:{values['image']['tag']}"
        log_progress(f"pushing {target}")
        _run([*_buildah(), "push", image, f"docker://{target}"], ROOT)


def build_chart_values(registry: str | None) -> dict[str, Any]:
    """Return the chart's values that name the images as they were built last; None is the embedded cluster."""
    names = ("operator", "trainer", "serving")
    built = {name: _recorded(f"finetune.dev/{name}:dev")[:12] for name in names}
    return {
        name: {
            "image": {
                "repository": f"{(registry or 'finetune.dev').rstrip('/')}/{name}",
                "tag": built[name] if registry else "dev",
            }
        }
        for name in names
    }


def build_image_annotation() -> dict[str, str]:
    """Return the annotation that replaces the operator's pod when its image was built anew under the same tag."""
    return {"finetune.dev/built-from": _recorded("finetune.dev/operator:dev")[:12]}


def _build_python() -> None:
    dockerfile = _BASES / "python.Dockerfile"
    inputs = digest_inputs([dockerfile], _DEBIAN_PACKAGES)
    if _recorded(_PYTHON) == inputs:
        return
    log_progress("building the base image from Debian packages (about 1 minute)")
    with tempfile.TemporaryDirectory(dir=IMAGES) as context:
        _run(
            [
                "mmdebstrap",
                "--variant=minbase",
                f"--include={_DEBIAN_PACKAGES}",
                "bookworm",
                f"{context}/debian.tar",
            ],
            ROOT,
        )
        _bud(_PYTHON, dockerfile, Path(context), [])
    _record(_PYTHON, inputs)


def _build_cpu() -> None:
    dockerfile = _BASES / "cpu.Dockerfile"
    stub = ROOT / "serving_image/vllm-cpu"
    inputs = digest_inputs(
        [dockerfile, ROOT / "install.sh", ROOT / "uv.lock", stub / "pyproject.toml"], _recorded(_PYTHON)
    )
    if _recorded(_CPU) == inputs:
        return
    _require_room()
    log_progress("building the heavy base image (about 2 minutes)")
    with tempfile.TemporaryDirectory(dir=IMAGES) as directory:
        context = Path(directory)
        for path in (ROOT / "install.sh", ROOT / "pyproject.toml"):
            shutil.copy(path, context)
        shutil.copytree(stub, context / "vllm-cpu", ignore=shutil.ignore_patterns("build", "*.egg-info"))
        _run(
            [
                str(CACHE / "uv/bin/uv"),
                "export",
                "-q",
                "--frozen",
                "--no-dev",
                "--no-emit-workspace",
                "--no-hashes",
                "--package=finetune-trainer",
                "--package=finetune-serving",
                "--extra=cpu",
                f"--output-file={context / 'requirements.txt'}",
            ],
            ROOT,
        )
        cache = _run([str(CACHE / "uv/bin/uv"), "cache", "dir"], ROOT).strip()
        Path(cache).mkdir(parents=True, exist_ok=True)
        _bud(_CPU, dockerfile, context, [f"--volume={cache}:/root/.cache/uv"])
    _record(_CPU, inputs)


def _require_room() -> None:
    free = shutil.disk_usage(CACHE).free >> 30
    if free < _ROOM:
        raise ClusterError(
            f"the images need {_ROOM} GiB below {CACHE}, {free} GiB are free: make room, or move the clone"
        )


def _bud(name: str, dockerfile: Path, context: Path, arguments: list[str]) -> None:
    """Build an image and write its blobs into the OCI layout; uncompressed, since they stay on this machine."""
    certificates = "--volume=/etc/ssl/certs:/etc/ssl/certs:ro"
    _run(
        [
            *_buildah(),
            "bud",
            "--isolation=chroot",
            "--layers=false",
            certificates,
            *arguments,
            f"--tag={name}",
            f"--file={dockerfile}",
            str(context),
        ],
        ROOT,
    )
    storage = f"containers-storage:[overlay@{_STORAGE}+{_RUN_ROOT}]{name}"
    # buildah's own push compresses every layer anew, those of the base too.
    copy = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-oci-accept-uncompressed-layers"]
    _run([*copy, storage, f"oci:{LAYOUT}:{name}"], ROOT)


def _sources(folders: Iterable[str]) -> list[Path]:
    return [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".toml", ".typed") and "__pycache__" not in path.parts
    ]


def _recorded(name: str) -> str:
    path = _record_path(name)
    return path.read_text() if path.exists() else ""


def _record(name: str, inputs: str) -> None:
    _record_path(name).write_text(inputs)


def _record_path(name: str) -> Path:
    return IMAGES / (name.replace("/", "_").replace(":", "_") + ".inputs")


def _buildah() -> list[str]:
    return [
        "buildah",
        "--storage-driver=overlay",
        f"--root={_STORAGE}",
        f"--runroot={_RUN_ROOT}",
    ]


def _run(command: list[str], directory: Path, env: dict[str, Any] | None = None) -> str:
    done = subprocess.run(
        command, cwd=directory, env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout
