"""Data files are recognized by their suffixes."""

from pathlib import Path

import pytest
from finetune_trainer.data_files import is_data_file


@pytest.mark.parametrize(
    ("name", "expected"), [("a.txt", False), ("a.parquet", True), ("b.csv.zst", True), (".jsonl", False)]
)
def test_data_files_are_recognized_by_their_suffixes(name: str, expected: bool) -> None:
    assert is_data_file(Path(name)) is expected
