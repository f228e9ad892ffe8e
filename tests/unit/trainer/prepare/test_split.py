"""Which examples are held out."""

import json
from pathlib import Path

import numpy as np
import pytest
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.split import choose_fraction, choose_heldout, write_split
from finetune_trainer.prepared import read_examples
from hypothesis import given
from hypothesis import strategies as st
from unit.scans import chat, scan


@given(st.lists(st.integers(0, 60), min_size=6, max_size=80), st.floats(0.01, 0.5), st.integers(0, 9))
def test_a_split_keeps_every_row_and_separates_questions(
    tmp_path_factory: pytest.TempPathFactory, questions: list[int], fraction: float, seed: int
) -> None:
    directory = tmp_path_factory.mktemp("split")
    source = scan(directory, [chat(question) for question in questions])
    if len(set(questions)) < 3:
        with pytest.raises(StageError, match="3 different examples are needed"):
            choose_heldout(source, fraction, seed)
        return
    flags = choose_heldout(source, fraction, seed)
    assert np.array_equal(choose_heldout(source, fraction, seed), flags)
    write_split(source, flags, directory / "train.jsonl", directory / "heldout.jsonl")
    train, heldout = (
        [json.dumps(example) for example in read_examples(directory / name)]
        for name in ("train.jsonl", "heldout.jsonl")
    )
    assert sorted(train + heldout) == sorted(json.dumps(chat(question)) for question in questions)
    assert not set(train) & set(heldout)
    assert train
    assert heldout
    assert not source.path.exists()


@pytest.mark.parametrize(("examples", "fraction"), [(20, 0.2), (50, 0.2), (80, 0.125), (100, 0.1), (5000, 0.1)])
def test_a_small_dataset_holds_out_enough_for_a_gate(examples: int, fraction: float) -> None:
    assert choose_fraction(examples, 10) == fraction


def test_examples_stay_held_out_when_others_are_added(tmp_path: Path) -> None:
    """So that an incumbent and the model that is to replace it can be compared on data that is new to both."""
    before, after = (
        choose_heldout(scan(tmp_path, [chat(number) for number in range(count)]), 0.1, 42) for count in (400, 500)
    )
    kept = (before & after[:400]).sum() / before.sum()
    assert kept > 0.8
    other = choose_heldout(scan(tmp_path, [chat(number) for number in range(400)]), 0.1, 43)
    assert (before & other).sum() < before.sum() / 2
