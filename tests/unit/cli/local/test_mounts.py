"""The directories in the place of claims and ConfigMaps."""

from pathlib import Path

import pytest
from finetune.errors import CommandError
from finetune.local.mounts import mount_volumes, parse_mounts


def build_pod(*paths: str) -> dict[str, object]:
    return {"containers": [{"volumeMounts": [{"name": "volume", "mountPath": path} for path in paths]}]}


def test_claims_and_config_maps_have_directories(tmp_path: Path) -> None:
    root, models, beside = tmp_path / "root", tmp_path / "models", tmp_path / "manifests"
    models.mkdir()
    beside.mkdir()
    pod = build_pod("/scratch", "/claims/models", "/claims/finetune-artifacts", "/configmaps/data")
    for _ in range(2):
        mount_volumes(pod, root, {"models": models}, beside)
    assert (root / "claims" / "models").resolve() == models
    assert (root / "configmaps" / "data").resolve() == beside
    assert (root / "claims" / "finetune-artifacts").is_dir()
    assert not (root / "scratch").exists()


def test_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--mount models=.*there is no such directory"):
        mount_volumes(build_pod("/claims/models"), tmp_path / "root", {"models": tmp_path / "none"}, tmp_path)


def test_a_claim_with_files_is_not_replaced(tmp_path: Path) -> None:
    mount_volumes(build_pod("/claims/models"), tmp_path / "root", {}, tmp_path)
    with pytest.raises(CommandError, match="leave out --mount models"):
        mount_volumes(build_pod("/claims/models"), tmp_path / "root", {"models": tmp_path}, tmp_path)


def test_the_option_names_a_claim_and_a_directory() -> None:
    assert parse_mounts(["models=/data/a=b"]) == {"models": Path("/data/a=b")}
    for text in ("models", "=/data", "models="):
        with pytest.raises(CommandError, match="write NAME=DIRECTORY"):
            parse_mounts([text])
