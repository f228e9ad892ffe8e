"""The formulas of the estimate, against figures that can be worked out by hand or are published."""

from dataclasses import replace
from typing import Any

import pytest
from finetune_api.estimate import Estimate, GpuKind, describe_estimate
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.prepare.estimate import (
    choose_rate,
    estimate_flops,
    estimate_memory,
    estimate_training,
    explain_memory_shortage,
)
from finetune_trainer.prepare.step_geometry import SampleLengths
from finetune_trainer.train.schedule import choose_hyperparameters
from unit.geometries import LENGTHS, LLAMA_8B, geometry_of, lengths, spec

GRADER = {"name": "g", "stringCheck": {}}
H100 = GpuKind(memory="80Gi", tflops=989, hour_price=3)


def estimate_of(job: FineTuneJobSpec, kind: GpuKind | None) -> Estimate:
    return estimate_training(geometry_of(job), LLAMA_8B, choose_rate(job, kind, "USD"))


def shortage(job: FineTuneJobSpec, data: SampleLengths, memory: str | None) -> str:
    return explain_memory_shortage(job, choose_hyperparameters(job, data.longest), LLAMA_8B, data, memory)


def test_the_memory_is_the_sum_of_parts_that_can_be_worked_out() -> None:
    geometry = geometry_of(spec())
    memory = estimate_memory(LLAMA_8B, geometry)
    assert (geometry.tokens, geometry.sequences) == (8 * 512, 8)
    assert memory.weights == 2 * 8_030_261_248 + 4 * 41_943_040
    assert (memory.gradients, memory.optimizer) == (4 * 41_943_040, 8 * 41_943_040)
    kept = 32 * 4096 * 4096 * 2
    assert kept < memory.activations < kept + 2**32
    assert memory.total == sum(vars(memory).values())
    assert estimate_memory(LLAMA_8B, geometry_of(spec(gpus=2))).gradients == 2 * memory.gradients


def test_four_bits_take_a_quarter_of_the_linear_weights_and_a_smaller_adapter() -> None:
    lora, qlora = (estimate_memory(LLAMA_8B, geometry_of(spec(adapter={name: {}}))) for name in ("lora", "qlora"))
    assert 5.0 < qlora.weights / 2**30 < 5.7
    assert qlora.optimizer == lora.optimizer / 2


@pytest.mark.parametrize(
    ("parallelism", "bytes_per_parameter"),
    # ZeRO (2020), section 3.1: 2 for weights, 2 for gradients, 12 for the optimizer; DDP holds no float32 copy.
    [
        ("DDP", (2, 4, 4)),
        ("ZeRO1", (2, 2, 3)),
        ("ZeRO2", (2, 0.5, 3)),
        ("ZeRO3", (0.5, 0.5, 3)),
        ("FSDP2", (0.5, 0.5, 3)),
    ],
)
def test_each_parallelism_shards_its_parts(parallelism: str, bytes_per_parameter: tuple[float, float, float]) -> None:
    job = spec(gpus=4, adapter={"full": {}}, compute={"parallelism": parallelism})
    memory = estimate_memory(LLAMA_8B, geometry_of(job))
    parts = (memory.weights, memory.gradients, memory.optimizer)
    assert parts == tuple(size * LLAMA_8B.parameters for size in bytes_per_parameter)


def test_all_logits_of_a_large_vocabulary_outweigh_the_rest() -> None:
    memory = estimate_memory(LLAMA_8B, geometry_of(spec(method={"orpo": {}})))
    assert memory.logits > memory.weights / 2


@pytest.mark.parametrize("name", ["sequence_length", "sequences"])
def test_more_tokens_at_a_time_take_more_memory(name: str) -> None:
    geometry = geometry_of(spec())
    larger = replace(geometry, **{name: 2 * getattr(geometry, name)})
    assert estimate_memory(LLAMA_8B, larger).activations > 1.9 * estimate_memory(LLAMA_8B, geometry).activations


def test_a_large_vocabulary_costs_no_more_than_a_tile_of_logits() -> None:
    narrow = replace(LLAMA_8B, hidden_size=256, layer_width=5_632, max_width=1_024, layers=4)
    geometry = geometry_of(spec(microBatchSize=1, maxLength=64, batchSize=8))
    small, large = (estimate_memory(replace(narrow, embedding_rows=size), geometry) for size in (32_000, 256_000))
    assert 0 < small.logits == large.logits < 64 * 32768 * 2
    assert estimate_memory(LLAMA_8B, geometry).logits == 0


def test_operations_follow_the_published_rule() -> None:
    geometry = geometry_of(spec())
    # 2 for the forward pass, 2 for the backward pass through frozen weights, 2 for recomputation, besides attention.
    assert estimate_flops(LLAMA_8B, geometry) == pytest.approx(6 * LLAMA_8B.active_parameters, rel=0.1)
    assert estimate_flops(LLAMA_8B, replace(geometry, on_gpu=False)) == pytest.approx(
        4 * LLAMA_8B.active_parameters, rel=0.1
    )
    full = geometry_of(spec(adapter={"full": {}}))
    assert estimate_flops(LLAMA_8B, full) == pytest.approx(8 * LLAMA_8B.active_parameters, rel=0.1)


def test_hours_and_cost_follow_from_the_administrators_table() -> None:
    job = spec(gpus=2)
    estimate = estimate_of(job, H100)
    assert estimate.hours is not None
    assert estimate.gpu_hours is not None
    assert estimate.gpu_hours == pytest.approx(2 * estimate.hours, abs=1e-3)
    assert estimate.cost == pytest.approx(3 * estimate.gpu_hours, abs=1e-3)
    assert (estimate.trained_tokens, estimate.steps, estimate.currency) == (1_024_000, 250, "USD")
    operations = 1_024_000 * estimate_flops(LLAMA_8B, geometry_of(job))
    assert estimate.hours == pytest.approx(operations / (2 * 989e12 * 0.3) / 3600, rel=0.01)
    assert "GiB of memory a GPU" in describe_estimate(estimate, on_gpu=True)


@pytest.mark.parametrize(
    ("kind", "changes", "currency", "unknown"),
    [
        (None, {}, None, "gpu.kinds has no tflops and no hourPrice"),
        (GpuKind(tflops=989), {}, None, "has no hourPrice (or the job's budget.gpuHourPrice)"),
        (GpuKind(hour_price=3), {}, None, "has no tflops for"),
        (H100, {"method": {"grpo": {"graders": [GRADER]}}}, None, "method.grpo generates answers during training"),
        (GpuKind(tflops=989), {"budget": {"gpuHourPrice": 2, "currency": "EUR"}}, "EUR", None),
        (H100, {"budget": {"gpuHourPrice": 2}}, "USD", None),
    ],
)
def test_the_cost_is_unknown_if_a_figure_is_missing(
    kind: GpuKind | None, changes: Any, currency: str | None, unknown: str | None
) -> None:
    estimate = estimate_of(spec(**changes), kind)
    assert (estimate.cost is None, estimate.currency) == (currency is None, currency)
    assert (unknown is None) == (estimate.unknown is None)
    assert (unknown or "") in (estimate.unknown or "")
    if currency:
        assert estimate.cost == pytest.approx(2 * (estimate.gpu_hours or 0), abs=1e-3)


def test_a_training_on_cpus_costs_no_gpu_hours() -> None:
    estimate = estimate_of(spec(gpus=0), None)
    assert (estimate.gpu_hours, estimate.cost, estimate.hours, estimate.unknown) == (0, 0, None, None)


def test_a_training_that_is_far_too_large_is_refused_with_what_to_do() -> None:
    job, long = spec(maxLength=8192), lengths(8192, 100)
    assert shortage(job, long, "80Gi") == ""
    # The training halves its micro-batch by itself, so 40 GiB may suffice.
    assert shortage(job, long, "40Gi") == ""
    message = shortage(job, long, "10Gi")
    assert (
        "even with one sequence of 8192 tokens at a time, but a GPU has 10.0 GiB: lower hyperparameters.maxLength"
        in message
    )
    assert "or use adapter.qlora, compute.parallelism FSDP2 with more GPUs, a smaller base model or larger" in message
    assert "FSDP2" not in shortage(spec(adapter={"qlora": {}}, maxLength=8192), long, "4Gi")
    assert shortage(job, long, None) == ""
    assert shortage(spec(gpus=0, maxLength=8192), long, "10Gi") == ""


def test_a_training_is_refused_only_beyond_the_error_of_the_formula() -> None:
    job = spec(microBatchSize=1)
    needed = estimate_memory(LLAMA_8B, geometry_of(job)).total
    assert shortage(job, LENGTHS, f"{round(needed / 1.1 / 2**20)}Mi") == ""
    assert shortage(job, LENGTHS, f"{round(needed / 1.3 / 2**20)}Mi")
