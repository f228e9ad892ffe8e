"""The digest of a build's inputs."""

from pathlib import Path

from cluster.layout import ROOT, digest_inputs


def test_the_digest_changes_with_the_files_and_the_extra_input(tmp_path: Path) -> None:
    file = ROOT / "install.sh"
    before = digest_inputs([file], "base-1")
    assert digest_inputs([file], "base-1") == before
    assert digest_inputs([file], "base-2") != before
    assert digest_inputs([file, ROOT / "uv.lock"], "base-1") != before
