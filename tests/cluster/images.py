"""Builds the images without a registry, loads them into containerd, and pushes them to a registry."""

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
_REQUIRED_GIB = 22
"""Disk space of the images: in buildah's storage, as blobs, and unpacked by containerd."""
_DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates,libnuma1,libgomp1"


@dataclass(frozen=True)
class Image:
    """One image of the project, with its inputs."""

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
    """Check the disk space for the images, before ten minutes go into building Kubernetes.

    Raises:
        ClusterError: the images are not built yet, and the disk is too full for them.
    """
    if not _read_record(_CPU):
        _require_disk_space()


def build_bases() -> None:
    """Build the two base images if their inputs changed."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    _build_python()
    _build_cpu()


def build_images() -> None:
    """Build the base images and the project's images if their inputs changed; remove the replaced ones."""
    install_debian()
    build_bases()
    for image in _IMAGES:
        inputs = digest_inputs(
            [image.dockerfile, ROOT / "install.sh", ROOT / "uv.lock", *_sources(image.sources)],
            _read_record(image.base),
        )
        if _read_record(image.name) == inputs:
            continue
        log_progress(f"building {image.name}")
        arguments = [f"--build-arg={argument}" for argument in (f"BASE={image.base}", *image.arguments)]
        _build_image(image.name, image.dockerfile, ROOT, arguments)
        _write_record(image.name, inputs)
    prune_layout()
    _run([*_buildah(), "rmi", "--prune", "--force"], ROOT)


def load_pause_image() -> None:
    """Build the pause image if its inputs changed, and load it into containerd."""
    source = _HERE / "pause"
    inputs = digest_inputs([source / "main.go", _BASES / "pause.Dockerfile"], "")
    if _read_record(PAUSE_IMAGE) != inputs:
        IMAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=IMAGES) as context:
            _run(["go", "build", "-trimpath", "-o", f"{context}/pause", "main.go"], source, {"CGO_ENABLED": "0"})
            _build_image(PAUSE_IMAGE, _BASES / "pause.Dockerfile", Path(context), [])
        _write_record(PAUSE_IMAGE, inputs)
    load_image(PAUSE_IMAGE)


def load_images() -> None:
    """Load the project's images into containerd; the base images first, so that their blobs are copied once."""
    for name in (_PYTHON, _CPU, *(image.name for image in _IMAGES)):
        load_image(name)


def push_images(registry: str) -> None:
    """Push the project's images below a registry path; the tag of each is a digest of its inputs."""
    for name, values in build_chart_values(registry).items():
        image = f"finetune.dev/{name}:dev"
        target = f"{values['image']['repository']}:{values['image']['tag']}"
        log_progress(f"pushing {target}")
        _run([*_buildah(), "push", image, f"docker://{target}"], ROOT)


def build_chart_values(registry: str | None) -> dict[str, Any]:
    """Return the chart values that select the last built images; `registry` is None for the embedded cluster."""
    names = ("operator", "trainer", "serving")
    built = {name: _read_record(f"finetune.dev/{name}:dev")[:12] for name in names}
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
    """Return a pod annotation that changes with the operator's image, to roll out a rebuilt image with the same tag."""
    return {"finetune.dev/built-from": _read_record("finetune.dev/operator:dev")[:12]}


def _build_python() -> None:
    dockerfile = _BASES / "python.Dockerfile"
    inputs = digest_inputs([dockerfile], _DEBIAN_PACKAGES)
    if _read_record(_PYTHON) == inputs:
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
        _build_image(_PYTHON, dockerfile, Path(context), [])
    _write_record(_PYTHON, inputs)


def _build_cpu() -> None:
    dockerfile = _BASES / "cpu.Dockerfile"
    stub = ROOT / "serving_image/vllm-cpu"
    inputs = digest_inputs(
        [dockerfile, ROOT / "install.sh", ROOT / "uv.lock", stub / "pyproject.toml"], _read_record(_PYTHON)
    )
    if _read_record(_CPU) == inputs:
        return
    _require_disk_space()
    log_progress("building the base image with all Python packages (about 2 minutes)")
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
        _build_image(_CPU, dockerfile, context, [f"--volume={cache}:/root/.cache/uv"])
    _write_record(_CPU, inputs)


def _require_disk_space() -> None:
    free = shutil.disk_usage(CACHE).free >> 30
    if free < _REQUIRED_GIB:
        raise ClusterError(
            f"the images need {_REQUIRED_GIB} GiB below {CACHE}, and {free} GiB are free: free space, or move the clone"
        )


def _build_image(name: str, dockerfile: Path, context: Path, arguments: list[str]) -> None:
    """Build an image and write its blobs to the OCI layout, uncompressed because they stay on this machine."""
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
    # `buildah push` would compress all layers each time, including those of the base image.
    copy = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-oci-accept-uncompressed-layers"]
    _run([*copy, storage, f"oci:{LAYOUT}:{name}"], ROOT)


def _sources(folders: Iterable[str]) -> list[Path]:
    return [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".toml", ".typed") and "__pycache__" not in path.parts
    ]


def _read_record(name: str) -> str:
    path = _record_path(name)
    return path.read_text() if path.exists() else ""


def _write_record(name: str, inputs: str) -> None:
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
