"""Data sources as a whole: whether they can be used, contamination, duplicates, rare labels."""

from pathlib import Path

import pytest
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.data_quality import (
    check_rows,
    find_contamination,
    warn_about_duplicates,
    warn_about_rare_label,
)
from unit.scans import chat, scan


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is empty"):
        check_rows(scan(tmp_path, [b""]))


def test_contamination_names_both_lines(tmp_path: Path) -> None:
    train = scan(tmp_path / "train", [chat("a"), chat("b")], uri="train")
    heldout = scan(tmp_path / "heldout", [chat("c"), chat("b")], uri="heldout")
    find_contamination(train, heldout)
    ((location, message),) = heldout.errors.listed["leak"]
    assert (location, heldout.invalid_rows) == ("line 2", 1)
    assert message == "the training data has the same prompt, in train line 2: remove one of them"


def test_duplicates_are_counted_and_named(tmp_path: Path) -> None:
    source = scan(tmp_path, [chat(1), chat(1), chat(2), chat(1)])
    assert warn_about_duplicates(source) == 2
    assert [location for location, _ in source.warnings.listed["duplicate"]] == ["line 2", "line 4"]
    assert source.warnings.listed["duplicate"][1][1].startswith("identical to line 1 ")
    assert "contradiction" not in source.warnings.counts


@pytest.mark.parametrize(("good", "warned"), [(18, False), (19, True), (20, True)])
def test_a_rare_label_causes_a_warning(tmp_path: Path, good: int, warned: bool) -> None:
    rows = [{"prompt": f"{number}", "completion": "x", "label": number < good} for number in range(20)]
    source = scan(tmp_path, rows, method="kto")
    warn_about_rare_label(source)
    assert ("labels" in source.warnings.counts) == warned
