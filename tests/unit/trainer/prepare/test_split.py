"""Data as a whole: whether it can be used, what repeats, what is held out."""

import json
from pathlib import Path

import numpy as np
import pytest
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.split import (
    check_survey,
    choose_heldout,
    find_leaks,
    warn_of_labels,
    warn_of_repeats,
    write_parts,
)
from finetune_trainer.prepared import read_examples
from hypothesis import given
from hypothesis import strategies as st
from unit.surveys import chat, look


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is empty"):
        check_survey(look(tmp_path, [b""]))


@given(st.lists(st.integers(0, 60), min_size=6, max_size=80), st.floats(0.01, 0.5), st.integers(0, 9))
def test_a_split_keeps_every_row_and_keeps_its_questions_apart(
    tmp_path_factory: pytest.TempPathFactory, questions: list[int], fraction: float, seed: int
) -> None:
    directory = tmp_path_factory.mktemp("split")
    found = look(directory, [chat(question) for question in questions])
    if len(set(questions)) < 3:
        with pytest.raises(StageError, match="cannot be split"):
            choose_heldout(found, fraction, seed)
        return
    flags = choose_heldout(found, fraction, seed)
    assert np.array_equal(choose_heldout(found, fraction, seed), flags)
    write_parts(found, flags, directory / "train.jsonl", directory / "heldout.jsonl")
    train, heldout = (
        [json.dumps(one) for one in read_examples(directory / name)] for name in ("train.jsonl", "heldout.jsonl")
    )
    assert sorted(train + heldout) == sorted(json.dumps(chat(question)) for question in questions)
    assert not set(train) & set(heldout)
    assert train
    assert heldout
    assert not found.path.exists()


def test_a_leak_names_both_lines(tmp_path: Path) -> None:
    train = look(tmp_path / "train", [chat("a"), chat("b")], uri="train")
    heldout = look(tmp_path / "heldout", [chat("c"), chat("b")], uri="heldout")
    find_leaks(train, heldout)
    ((place, message),) = heldout.errors.listed["leak"]
    assert (place, heldout.wrong) == ("line 2", 1)
    assert message.startswith("the same question is in train line 2: it proves nothing")


def test_what_stands_twice_is_counted_and_named(tmp_path: Path) -> None:
    found = look(tmp_path, [chat(1), chat(1), chat(2), chat(1)])
    assert warn_of_repeats(found) == 2
    assert [place for place, _ in found.warnings.listed["duplicate"]] == ["line 2", "line 4"]
    assert found.warnings.listed["duplicate"][1][1].startswith("the same as line 1: ")
    assert "contradiction" not in found.warnings.counts


@pytest.mark.parametrize(("good", "warned"), [(18, False), (19, True), (20, True)])
def test_a_label_that_hardly_stands_is_warned_of(tmp_path: Path, good: int, warned: bool) -> None:
    rows = [{"prompt": f"{number}", "completion": "x", "label": number < good} for number in range(20)]
    found = look(tmp_path, rows, method="kto")
    warn_of_labels(found)
    assert ("labels" in found.warnings.counts) == warned
