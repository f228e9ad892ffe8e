"""Which files hold data."""

from pathlib import Path

import pytest
from finetune_trainer.data_files import is_data_file


@pytest.mark.parametrize(
    ("name", "expected"), [("a.txt", False), ("a.parquet", True), ("b.csv.zst", True), (".jsonl", False)]
)
def test_data_files_are_known_by_their_names(name: str, expected: bool) -> None:
    assert is_data_file(Path(name)) is expected
