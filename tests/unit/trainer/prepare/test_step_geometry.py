"""The sizes of training steps."""

from typing import Any

import numpy as np
import pytest
from finetune_trainer.prepare.step_geometry import SampleLengths
from unit.geometries import geometry_of, spec


@pytest.mark.parametrize(
    ("adapter", "trained"),
    [
        # Llama 3 8B, rank 16, all seven layers, as peft prints it.
        ({"lora": {"rank": 16}}, 41_943_040),
        # A magnitude for each output besides.
        ({"dora": {"rank": 8}}, 20_971_520 + 32 * 43_008),
        ({"rslora": {"rank": 16, "layers": [0, 1]}}, 41_943_040 // 16),
        ({"lora": {"rank": 16, "targetModules": ["q_proj", "v_proj"]}}, 6_815_744),
        ({"full": {}}, 8_030_261_248),
        ({"full": {"layers": [30, 31]}}, 2 * 218_112_000),
    ],
)
def test_an_adapter_has_as_many_parameters_as_peft_counts(adapter: Any, trained: int) -> None:
    assert geometry_of(spec(adapter=adapter)).trainable_parameters == trained


@pytest.mark.parametrize(
    ("method", "sequences", "extra_forwards", "all_logits"),
    [
        ({"sft": {"packing": False}}, 8, 0, False),
        ({"sft": {"packing": True}}, 1, 0, False),
        ({"dpo": {}}, 16, 1, False),
        ({"kto": {}}, 8, 3, False),
        ({"orpo": {}}, 16, 0, True),
        ({"reward": {}}, 16, 0, False),
    ],
)
def test_methods_differ_in_sequences_references_and_logits(
    method: Any, sequences: int, extra_forwards: int, all_logits: bool
) -> None:
    geometry = geometry_of(spec(method=method))
    assert (geometry.sequences, geometry.extra_forwards, geometry.all_logits) == (sequences, extra_forwards, all_logits)
    full = geometry_of(spec(method=method, adapter={"full": {}}))
    assert full.model_copies == (2 if extra_forwards else 1)


def test_padding_is_computed_too() -> None:
    values = np.array([100] * 50 + [300] * 50)
    mixed = SampleLengths(values, values)

    def computed(**changes: Any) -> float:
        return geometry_of(spec(epochs=1, **changes), mixed).computed_tokens

    assert computed(microBatchSize=1, batchSize=2) == 100 * 200
    # Two examples drawn at random are both short with probability 1/4.
    assert computed(microBatchSize=2, batchSize=2) == pytest.approx(100 * (100 / 4 + 300 * 3 / 4))
    assert computed(method={"sft": {"packing": True}}) == 100 * 200
    assert computed(microBatchSize=1, batchSize=2, maxLength=200) == 50 * 100 + 50 * 200
