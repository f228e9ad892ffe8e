"""What an image is made from."""

from pathlib import Path

from cluster.layout import ROOT, digest_inputs


def test_an_image_is_made_anew_when_a_file_or_its_base_changes(tmp_path: Path) -> None:
    file = ROOT / "install.sh"
    before = digest_inputs([file], "base-1")
    assert digest_inputs([file], "base-1") == before
    assert digest_inputs([file], "base-2") != before
    assert digest_inputs([file, ROOT / "uv.lock"], "base-1") != before
