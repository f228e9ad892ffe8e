"""Where a local run finds the claims and ConfigMaps that a manifest names: directories instead of volumes."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from finetune_api.contract.mounts import CLAIMS, CONFIG_MAPS, below

from finetune.errors import CommandError
from finetune.manifests import Manifest


def mount_volumes(pod: Manifest, root: Path, directories: Mapping[str, Path], beside: Path) -> None:
    """Make the claims and ConfigMaps of a pod visible below a root.

    A claim without a directory of its own is an empty one below the root. The keys of a ConfigMap are files beside the
    manifest, unless it has a directory.

    Args:
        pod: the spec of the pod.
        root: the directory in the place of the pod's `/`.
        directories: by name of a claim or ConfigMap the user's directory with its files.
        beside: the directory of the manifest.

    Raises:
        CommandError: a directory does not exist.
    """
    for mount in pod["containers"][0]["volumeMounts"]:
        path = PurePosixPath(mount["mountPath"])
        if path.parent not in (CLAIMS, CONFIG_MAPS):
            continue
        directory = directories.get(path.name, beside if path.parent == CONFIG_MAPS else None)
        _link(below(root, path), directory)


def _link(path: Path, directory: Path | None) -> None:
    if directory is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    if not directory.is_dir():
        raise CommandError(f"--mount {path.name}={directory}: there is no such directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        raise CommandError(f"{path} exists: remove it, or leave out --mount {path.name}")
    path.symlink_to(directory.resolve())


def parse_mounts(texts: Iterable[str]) -> dict[str, Path]:
    """Return the directories of `NAME=DIRECTORY` texts.

    Raises:
        CommandError: a text has another form.
    """
    directories = {}
    for text in texts:
        name, separator, directory = text.partition("=")
        if not separator or not name or not directory:
            raise CommandError(f"--mount {text}: write NAME=DIRECTORY, with the name of a claim or a ConfigMap")
        directories[name] = Path(directory)
    return directories
