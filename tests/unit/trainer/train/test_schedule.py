"""Default hyperparameters, the division of batches, and estimated steps."""

from typing import Any

import numpy as np
import pytest
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.train.schedule import (
    choose_hyperparameters,
    estimate_steps,
    explain_few_steps,
    explain_no_training,
    halve_micro_batch,
)
from hypothesis import given
from hypothesis import strategies as st


def lengths(count: int, tokens: int = 10) -> Any:
    return np.full(count, tokens)


def spec(
    method: dict[str, Any] | None = None, adapter: str = "lora", processes: int = 1, **hyperparameters: Any
) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "pvc://models/base"},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": method or {"sft": {"packing": False}},
            "adapter": {adapter: {}},
            "hyperparameters": hyperparameters,
            "compute": {"nodes": processes},
        }
    )


GRPO = {"grpo": {"graders": [{"name": "right", "stringCheck": {}}], "numGenerations": 6}}


@pytest.mark.parametrize(
    ("examples", "epochs"), [(1, 25), (10, 10), (33, 3), (34, 3), (8333, 3), (10_000, 2), (90_000, 1)]
)
def test_epochs_depend_on_the_number_of_examples(examples: int, epochs: float) -> None:
    assert choose_hyperparameters(spec(), lengths(examples)).epochs == epochs
    assert choose_hyperparameters(spec(epochs=1.5), lengths(examples)).epochs == 1.5


def test_the_learning_rate_of_adapters_is_ten_times_that_of_all_weights() -> None:
    methods: list[dict[str, Any]] = [{"sft": {}}, {"dpo": {}}, GRPO]
    for method in methods:
        adapter, full = (
            choose_hyperparameters(spec(method, kind), lengths(100)).learning_rate for kind in ("lora", "full")
        )
        assert adapter == pytest.approx(10 * full)
    assert choose_hyperparameters(spec(learningRate=0.5), lengths(100)).learning_rate == 0.5


@pytest.mark.parametrize(
    ("examples", "processes", "method", "size"),
    [
        (20, 1, None, 1),
        (95, 1, None, 2),
        (300, 1, None, 8),
        (1000, 1, None, 8),
        (10_000, 1, None, 16),
        (1_000_000, 1, None, 64),
        (300, 3, None, 9),
        (100, 4, GRPO, 24),
    ],
)
def test_the_batch_size_depends_on_examples_processes_and_generations(
    examples: int, processes: int, method: dict[str, Any] | None, size: int
) -> None:
    assert choose_hyperparameters(spec(method, processes=processes), lengths(examples)).batch_size == size


@pytest.mark.parametrize(("gpus", "max_length", "micro_batch"), [(0, 256, 4), (0, 1024, 1), (0, 4096, 1), (1, 1024, 8)])
def test_packed_rows_are_short_on_cpus(gpus: int, max_length: int, micro_batch: int) -> None:
    manifest = spec({"sft": {"packing": True}}, maxLength=max_length, batchSize=8).to_dict()
    manifest["compute"]["resources"]["gpus"] = gpus
    assert (
        choose_hyperparameters(FineTuneJobSpec.model_validate(manifest), lengths(100)).micro_batch_size == micro_batch
    )


@pytest.mark.parametrize(
    ("values", "processes", "divided"),
    [
        ({"batchSize": 8}, 1, (8, 1)),
        ({"batchSize": 8}, 4, (2, 1)),
        ({"batchSize": 64}, 2, (8, 4)),
        ({"batchSize": 14}, 1, (7, 2)),
        ({"batchSize": 8, "microBatchSize": 2}, 2, (2, 2)),
    ],
)
def test_a_batch_is_divided_among_processes(values: dict[str, Any], processes: int, divided: tuple[int, int]) -> None:
    chosen = choose_hyperparameters(spec(processes=processes, **values), lengths(100))
    assert (chosen.micro_batch_size, chosen.gradient_accumulation_steps) == divided


@pytest.mark.parametrize(
    ("method", "processes", "values", "message"),
    [
        (None, 3, {"batchSize": 8}, "not a multiple of 3 processes"),
        (None, 2, {"batchSize": 8, "microBatchSize": 8}, "does not divide 4"),
        (GRPO, 1, {"batchSize": 8}, "not a multiple of method.grpo.numGenerations 6"),
        ({"kto": {}}, 1, {"batchSize": 8, "microBatchSize": 1}, "set hyperparameters.microBatchSize to at least 2"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(
    method: dict[str, Any] | None, processes: int, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        choose_hyperparameters(spec(method, processes=processes, **values), lengths(100))


def test_the_default_batch_has_whole_micro_batches() -> None:
    for count in (20, 95, 300):
        chosen = choose_hyperparameters(spec(processes=2, microBatchSize=4), lengths(count))
        assert (chosen.micro_batch_size, chosen.batch_size % 8) == (4, 0)


def test_packing_reduces_the_steps() -> None:
    for packing, steps in ((False, 10), (True, 1)):
        job = spec({"sft": {"packing": packing}}, epochs=1, batchSize=8)
        samples = lengths(80, 100)
        assert estimate_steps(job, choose_hyperparameters(job, samples), samples) == steps


@pytest.mark.parametrize(
    ("micro_batch", "minimum", "smaller"), [(8, 1, 4), (7, 1, 1), (2, 2, None), (1, 1, None), (12, 2, 6)]
)
def test_a_micro_batch_is_halved_to_a_divisor(micro_batch: int, minimum: int, smaller: int | None) -> None:
    assert halve_micro_batch(micro_batch, minimum) == smaller


def explain(job: FineTuneJobSpec, samples: int) -> str:
    chosen = choose_hyperparameters(job, lengths(samples))
    steps = estimate_steps(job, chosen, lengths(samples))
    return explain_no_training(job, chosen, samples, steps)


def test_a_batch_of_more_answers_than_the_prompts_get_is_refused() -> None:
    message = explain(spec(GRPO, batchSize=36), 5)
    assert "batchSize 36 is more than 5 prompts with 6 answers each" in message
    assert "at most 30" in message
    assert explain(spec(GRPO, batchSize=30), 5) == ""


def test_the_default_batch_of_grpo_fits_the_prompts() -> None:
    for prompts in (1, 2, 5, 100):
        assert explain(spec(GRPO), prompts) == ""


def test_early_stopping_that_never_looks_is_refused() -> None:
    stopping = {"evalSteps": 50, "patience": 1, "fraction": 0.1}
    message = explain(spec(earlyStopping=stopping, epochs=1, batchSize=8), 100)
    assert "evalSteps 50 is not less than the 12 steps" in message
    assert explain(spec(earlyStopping=stopping | {"evalSteps": 11}, epochs=1, batchSize=8), 100) == ""
    assert "keeps back all examples" in explain(spec(earlyStopping=stopping), 1)


def test_the_warning_about_few_steps_says_what_to_change() -> None:
    job = spec({"sft": {"packing": True}}, batchSize=8)
    message = explain_few_steps(choose_hyperparameters(job, lengths(10)), 3)
    assert message.startswith("the training has only 3 steps")
    assert "set method.sft.packing to false, lower hyperparameters.batchSize from 8" in message
    job = spec(batchSize=1)
    assert "batchSize" not in explain_few_steps(choose_hyperparameters(job, lengths(10)), 3)


@pytest.mark.parametrize(
    ("count", "tokens", "packing", "steps"),
    [
        (95, 30, False, 144),
        (1000, 30, False, 375),
        (1000, 300, True, 441),
        (10_000, 100, True, 490),
        (100_000, 100, True, 611),
    ],
)
def test_examples_are_packed_if_enough_steps_are_left(count: int, tokens: int, packing: bool, steps: int) -> None:
    job, samples = spec({"sft": {}}), lengths(count, tokens)
    chosen = choose_hyperparameters(job, samples)
    assert (chosen.packing, estimate_steps(job, chosen, samples)) == (packing, steps)
    assert not choose_hyperparameters(job, samples, can_pack=False).packing
    assert choose_hyperparameters(spec({"sft": {"packing": True}}), samples).packing
    assert not choose_hyperparameters(spec({"sft": {"packing": False}}), samples).packing


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 8))
def test_a_training_of_few_examples_has_as_many_steps_as_they_allow(count: int, tokens: int, processes: int) -> None:
    job, samples = spec({"sft": {}}, processes=processes), lengths(count, tokens)
    chosen = choose_hyperparameters(job, samples)
    assert estimate_steps(job, chosen, samples) >= min(100, count * chosen.epochs) // processes
