"""Which examples are held out."""

import json

import numpy as np
import pytest
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.split import choose_heldout, write_split
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
