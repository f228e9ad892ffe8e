"""What digests see."""

from pathlib import Path

import pytest
from finetune_api.digest import digest_directory, digest_value


def test_digests_see_names_and_contents_but_not_the_order_of_keys(tmp_path: Path) -> None:
    assert digest_value({"a": 1, "b": 2}) == digest_value({"b": 2, "a": 1})
    (tmp_path / "a").write_text("x")
    first = digest_directory(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_directory(tmp_path) != first
    (tmp_path / "link").symlink_to("b")
    with pytest.raises(ValueError, match="symbolic link"):
        digest_directory(tmp_path)
