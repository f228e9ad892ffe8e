"""Lengths of trainings, and which checkpoint to go on from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.checkpoints import is_whole, mark_whole, newest_whole
from finetune_trainer.schedule import Batches, choose_batches, choose_epochs, estimate_steps


def spec(packing: bool = False, **hyperparameters: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "pvc://models/base"},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": {"sft": {"packing": packing}},
            "adapter": {"lora": {}},
            "hyperparameters": hyperparameters,
        }
    )


@pytest.mark.parametrize(
    ("examples", "epochs"), [(1, 25), (10, 10), (33, 3), (34, 3), (8333, 3), (10_000, 2), (90_000, 1)]
)
def test_epochs_follow_the_number_of_examples(examples: int, epochs: float) -> None:
    assert choose_epochs(spec(), examples) == epochs
    assert choose_epochs(spec(epochs=1.5), examples) == 1.5


@pytest.mark.parametrize(
    ("values", "devices", "batches"),
    [
        ({"batchSize": 8}, 1, Batches(8, 1)),
        ({"batchSize": 8}, 4, Batches(2, 1)),
        ({"batchSize": 64}, 2, Batches(8, 4)),
        ({"batchSize": 14}, 1, Batches(7, 2)),
        ({"batchSize": 8, "microBatchSize": 2}, 2, Batches(2, 2)),
    ],
)
def test_a_batch_is_divided_among_devices(values: dict[str, Any], devices: int, batches: Batches) -> None:
    assert choose_batches(spec(**values), devices) == batches


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of 3 devices"):
        choose_batches(spec(batchSize=8), 3)
    with pytest.raises(ValueError, match="does not divide 4"):
        choose_batches(spec(batchSize=8, microBatchSize=8), 2)


def test_packing_makes_fewer_steps() -> None:
    lengths = np.full(80, 100)
    assert estimate_steps(spec(epochs=1, batchSize=8), lengths) == 10
    assert estimate_steps(spec(packing=True, epochs=1, batchSize=8), lengths) == 1


def test_only_a_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_text("w" * step)
    assert newest_whole(tmp_path) is None
    for step in (5, 10):
        mark_whole(tmp_path / f"checkpoint-{step}")
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "weights").write_text("cut")
    assert not is_whole(tmp_path / "checkpoint-10")
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-5"
