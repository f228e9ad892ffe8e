"""Data sources as a whole: whether they can be used, contamination, duplicates, rare labels."""

import re
from pathlib import Path

import numpy as np
import pytest
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.data_quality import (
    check_rows,
    find_contamination,
    warn_about_duplicates,
    warn_about_rare_label,
)
from unit.scans import OTHER, chat, mix, scan


def contradicting(question: object) -> dict[str, object]:
    return chat(question) | {"messages": [*chat(question)["messages"][:1], OTHER]}


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is empty"):
        check_rows(scan(tmp_path, [b""]))


def test_all_sources_with_wrong_rows_are_named(tmp_path: Path) -> None:
    wrong = scan(tmp_path / "wrong", [chat(1), b"bad"])
    other = scan(tmp_path / "other", [b"bad", b"bad"], uri="pvc://other/data.jsonl")
    with pytest.raises(StageError) as error:
        check_rows(scan(tmp_path / "right", [chat(1)], uri="pvc://right/data.jsonl"), wrong, other)
    assert str(error.value).startswith("pvc://data/train.jsonl: 1 of 2 lines are wrong: line 2: not JSON")
    assert str(error.value).endswith("; pvc://other/data.jsonl: 2 of 2 lines are wrong")


def test_the_message_names_a_row_of_each_kind_before_a_second_one(tmp_path: Path) -> None:
    with pytest.raises(StageError) as error:
        check_rows(scan(tmp_path, [*[b"bad"] * 9, chat("endless")]))
    assert re.findall(r"line (\d+)", str(error.value)) == ["1", "10", "2", "3", "4"]


def test_contamination_names_both_lines(tmp_path: Path) -> None:
    train = scan(tmp_path / "train", [chat("a"), chat("b")])
    other = scan(tmp_path / "other", [chat("d")], uri="pvc://other/data.jsonl")
    heldout = scan(tmp_path / "heldout", [chat("c"), chat("b"), chat("d")], uri="pvc://heldout/data.jsonl")
    find_contamination(mix(train, other), heldout)
    assert heldout.errors.listed["leak"] == [
        ("line 2", "the training data has the same prompt, in pvc://data/train.jsonl line 2: remove one of them"),
        ("line 3", "the training data has the same prompt, in pvc://other/data.jsonl line 1: remove one of them"),
    ]


def test_examples_that_a_weight_leaves_out_contaminate_nothing(tmp_path: Path) -> None:
    train = scan(tmp_path / "train", [chat(number) for number in range(10)])
    heldout = scan(tmp_path / "heldout", [chat(number) for number in range(10)], uri="pvc://heldout/data.jsonl")
    find_contamination(mix(train, weights=[0.3]), heldout)
    assert heldout.invalid_rows == 3


def test_duplicates_are_counted_and_named(tmp_path: Path) -> None:
    source = scan(tmp_path, [chat(1), chat(1), chat(2), chat(1)])
    assert warn_about_duplicates(mix(source)) == 2
    assert [location for location, _ in source.warnings.listed["duplicate"]] == ["line 2", "line 4"]
    assert source.warnings.listed["duplicate"][1][1].startswith("identical to line 1 ")
    assert "contradiction" not in source.warnings.counts


def test_wanted_copies_are_no_duplicates_and_those_of_another_source_are_named(tmp_path: Path) -> None:
    first = scan(tmp_path / "first", [chat(1), chat(2)])
    second = scan(tmp_path / "second", [chat(3), chat(2), contradicting(1)], uri="pvc://other/data.jsonl")
    assert warn_about_duplicates(mix(first, second, weights=[3, 1])) == 1
    assert second.warnings.listed["duplicate"] == [
        ("line 2", "identical to pvc://data/train.jsonl line 2 and trained on twice: remove one")
    ]
    ((location, message),) = second.warnings.listed["contradiction"]
    assert (location, message.partition(",")[0]) == ("line 3", "contradicts pvc://data/train.jsonl line 1")


def test_examples_that_a_weight_leaves_out_are_no_duplicates(tmp_path: Path) -> None:
    first = scan(tmp_path / "first", [chat(number) for number in range(10)])
    second = scan(tmp_path / "second", [chat(number) for number in range(10)], uri="pvc://other/data.jsonl")
    assert warn_about_duplicates(mix(first, second, weights=[1, 0.2])) == 2


@pytest.mark.parametrize(("good", "warned"), [(18, False), (19, True), (20, True)])
def test_a_rare_label_causes_a_warning(tmp_path: Path, good: int, warned: bool) -> None:
    rows = [{"prompt": f"{number}", "completion": "x", "label": number < good} for number in range(20)]
    source = scan(tmp_path, rows, method="kto")
    warn_about_rare_label(np.asarray(source.labels), source.warnings)
    assert ("labels" in source.warnings.counts) == warned
