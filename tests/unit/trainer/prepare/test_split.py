"""Which examples are held out."""

import json
from pathlib import Path

import numpy as np
import pytest
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.mix import Mix
from finetune_trainer.prepare.split import choose_fraction, choose_heldout, write_heldout, write_train
from finetune_trainer.prepared import read_examples
from hypothesis import given
from hypothesis import strategies as st
from unit.scans import chat, mix, scan


def split(source: Mix, directory: Path, fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Write both parts and return the questions of their examples."""
    heldout = choose_heldout(source, fraction, seed)
    copies = source.copies.copy()
    copies[heldout] = 0
    write_heldout(source, heldout, directory / "heldout.jsonl")
    write_train(source, copies, directory / "train.jsonl")
    train, held = (
        [str(example["messages"][0]["content"]) for example in read_examples(directory / name)]
        for name in ("train.jsonl", "heldout.jsonl")
    )
    return train, held


@given(st.lists(st.integers(0, 60), min_size=6, max_size=80), st.floats(0.01, 0.5), st.integers(0, 9))
def test_a_split_keeps_every_row_and_separates_questions(
    tmp_path_factory: pytest.TempPathFactory, questions: list[int], fraction: float, seed: int
) -> None:
    directory = tmp_path_factory.mktemp("split")
    source = mix(scan(directory, [chat(question) for question in questions]))
    if len(set(questions)) < 3:
        with pytest.raises(StageError, match="3 different examples are needed"):
            choose_heldout(source, fraction, seed)
        return
    assert np.array_equal(choose_heldout(source, fraction, seed), choose_heldout(source, fraction, seed))
    train, heldout = split(source, directory, fraction, seed)
    assert sorted(train + heldout) == sorted(map(str, questions))
    assert not set(train) & set(heldout)
    assert train
    assert heldout


@given(
    st.lists(st.integers(0, 40), min_size=8, max_size=40),
    st.lists(st.integers(20, 80), min_size=8, max_size=40),
    st.sampled_from([0.25, 0.5, 1, 1.5, 2, 3]),
    st.integers(0, 9),
)
def test_no_copy_of_a_held_out_question_is_trained_on(
    tmp_path_factory: pytest.TempPathFactory, first: list[int], second: list[int], weight: float, seed: int
) -> None:
    """Also where both sources have the question."""
    directory = tmp_path_factory.mktemp("split")
    scans = [
        scan(directory / str(number), [chat(question) for question in questions], uri=f"pvc://data/{number}.jsonl")
        for number, questions in enumerate((first, second))
    ]
    source = mix(*scans, weights=[2, weight], seed=seed)
    if len(set(first)) < 3:
        return
    train, heldout = split(source, directory, 0.2, seed)
    assert not set(train) & set(heldout)
    assert len(heldout) <= len(first) + len(second)
    for question in set(train):
        copies = 2 * first.count(int(question)) + weight * second.count(int(question))
        assert train.count(question) <= 2 * first.count(int(question)) + np.ceil(weight) * second.count(int(question))
        assert weight % 1 or train.count(question) == copies


def test_the_first_held_out_examples_are_of_all_sources(tmp_path: Path) -> None:
    """The evaluation reads the first `maxExamples` of them."""
    scans = [
        scan(tmp_path / name, [chat(f"{name} {number}") for number in range(200)], uri=f"pvc://data/{name}.jsonl")
        for name in ("a", "b")
    ]
    _, heldout = split(mix(*scans), tmp_path, 0.5, 42)
    assert 30 < sum(question.startswith("a") for question in heldout[:100]) < 70


def test_examples_have_the_bytes_of_their_rows(tmp_path: Path) -> None:
    questions = ["é", "a\nb", "a\u2028b", "日本", "plain"]
    train, heldout = split(mix(scan(tmp_path, [chat(question) for question in questions])), tmp_path, 0.4, 1)
    assert sorted(train + heldout) == sorted(questions)
    assert json.loads((tmp_path / "heldout.jsonl").read_text().split("\n")[0])["messages"]


@pytest.mark.parametrize(("examples", "fraction"), [(20, 0.2), (50, 0.2), (80, 0.125), (100, 0.1), (5000, 0.1)])
def test_a_small_dataset_holds_out_enough_for_a_gate(examples: int, fraction: float) -> None:
    assert choose_fraction(examples, 10) == fraction


def test_examples_stay_held_out_when_others_are_added(tmp_path: Path) -> None:
    """So that an incumbent and the model that is to replace it can be compared on data that is new to both."""
    before, after = (
        set(choose_heldout(mix(scan(tmp_path, [chat(number) for number in range(count)])), 0.1, 42))
        for count in (400, 500)
    )
    assert len(before & after) > 0.8 * len(before)
    other = set(choose_heldout(mix(scan(tmp_path, [chat(number) for number in range(400)])), 0.1, 43))
    assert len(before & other) < len(before) / 2
