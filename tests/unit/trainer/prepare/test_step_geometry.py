"""How a job trains, as far as its memory and its time depend on it."""

from typing import Any

import numpy as np
import pytest
from finetune_trainer.prepare.step_geometry import ExampleLengths
from unit.setups import setup_of, spec


@pytest.mark.parametrize(
    ("adapter", "trained"),
    [
        # Llama 3 8B, rank 16, all seven layers, as peft prints it.
        ({"lora": {"rank": 16}}, 41_943_040),
        ({"dora": {"rank": 8}}, 20_971_520),
        ({"rslora": {"rank": 16, "layers": [0, 1]}}, 41_943_040 // 16),
        ({"lora": {"rank": 16, "targetModules": ["q_proj", "v_proj"]}}, 6_815_744),
        ({"full": {}}, 8_030_261_248),
        ({"full": {"layers": [30, 31]}}, 2 * 218_112_000),
    ],
)
def test_an_adapter_has_as_many_parameters_as_peft_counts(adapter: Any, trained: int) -> None:
    assert setup_of(spec(adapter=adapter)).trained == trained


@pytest.mark.parametrize(
    ("method", "rows", "forwards", "all_logits"),
    [
        ({"sft": {"packing": False}}, 8, 0, False),
        ({"sft": {"packing": True}}, 1, 0, False),
        ({"dpo": {}}, 16, 1, False),
        ({"kto": {}}, 8, 3, False),
        ({"orpo": {}}, 16, 0, True),
        ({"reward": {}}, 16, 0, False),
    ],
)
def test_methods_differ_in_rows_references_and_logits(method: Any, rows: int, forwards: int, all_logits: bool) -> None:
    setup = setup_of(spec(method=method))
    assert (setup.rows, setup.more_forwards, setup.all_logits) == (rows, forwards, all_logits)
    copies = setup_of(spec(method=method, adapter={"full": {}})).copies
    assert copies == (2 if forwards else 1)


def test_batches_that_are_filled_up_are_computed_too() -> None:
    values = np.array([100] * 50 + [300] * 50)
    mixed = ExampleLengths(values, values)

    def computed(**changes: Any) -> float:
        return setup_of(spec(epochs=1, **changes), mixed).computed_tokens

    assert computed(microBatchSize=1, batchSize=2) == 100 * 200
    # Of two drawn by chance both are short with 1/4.
    assert computed(microBatchSize=2, batchSize=2) == pytest.approx(100 * (100 / 4 + 300 * 3 / 4))
    assert computed(method={"sft": {"packing": True}}) == 100 * 200
    assert computed(microBatchSize=1, batchSize=2, maxLength=200) == 50 * 100 + 50 * 200
