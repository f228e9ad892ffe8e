"""How many times an epoch trains on each example."""

from pathlib import Path

import numpy as np
import pytest
from finetune_api.conditions import Reason
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.mix import count_copies
from unit.scans import chat, mix, scan

HASHES = np.random.default_rng(1).integers(2**64, size=1000, dtype=np.uint64, endpoint=False)


@pytest.mark.parametrize(
    ("weight", "counts"),
    [(1, {1: 1000}), (2, {2: 1000}), (0.2, {0: 800, 1: 200}), (1.5, {1: 500, 2: 500}), (2.3, {2: 700, 3: 300})],
)
def test_a_weight_is_a_number_of_passes(weight: float, counts: dict[int, int]) -> None:
    copies, numbers = np.unique(count_copies(HASHES, weight, 42), return_counts=True)
    assert dict(zip(copies.tolist(), numbers.tolist(), strict=True)) == counts


def test_a_larger_weight_keeps_what_a_smaller_one_chose() -> None:
    small, large = (np.flatnonzero(count_copies(HASHES, weight, 42)) for weight in (0.2, 0.3))
    assert set(small) < set(large)


def test_another_seed_chooses_others() -> None:
    first, second = (set(np.flatnonzero(count_copies(HASHES, 0.2, seed))) for seed in (1, 2))
    assert 20 < len(first & second) < 60


def test_a_weight_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    first = scan(tmp_path / "a", [chat(1)])
    second = scan(tmp_path / "b", [chat(number) for number in range(4)], uri="hf://org/data")
    with pytest.raises(StageError, match="^dataset") as error:
        mix(first, second, weights=[1, 0.1])
    assert error.value.reason is Reason.INVALID_SPEC
    assert str(error.value) == (
        "dataset.mix[1].weight is 0.1, which leaves none of 4 examples of hf://org/data: raise it, or remove the source"
    )


def test_the_lengths_of_an_epoch_count_copies(tmp_path: Path) -> None:
    source = mix(scan(tmp_path, [chat("one"), chat("one two three")]), weights=[2])
    lengths = source.measure(source.copies)
    assert lengths.tokens[0] == lengths.tokens[1] == lengths.tokens[2] - 2 == lengths.tokens[3] - 2
    assert source.measure(np.array([0, 1])).tokens.tolist() == [lengths.tokens[2]]


def test_an_example_is_found_in_its_source(tmp_path: Path) -> None:
    scans = [scan(tmp_path / str(count), [chat(number) for number in range(count)]) for count in (2, 3)]
    source = mix(*scans)
    assert [source.find(index) for index in (0, 1, 2, 4)] == [
        (scans[0], 0),
        (scans[0], 1),
        (scans[1], 0),
        (scans[1], 2),
    ]
    assert [part.tolist() for part in source.split(np.arange(5))] == [[0, 1], [2, 3, 4]]
