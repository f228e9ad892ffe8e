"""The formulas of the estimate, against figures that can be worked out by hand or are published."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from finetune_api.estimate import Estimate, GpuKind, describe_estimate, parse_quantity
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.estimate import estimate, estimate_flops, estimate_memory, find_misfit, find_rate
from finetune_trainer.schedule import choose
from finetune_trainer.setup import ExampleLengths, Setup, build_setup
from finetune_trainer.shape import ModelShape

LLAMA_8B = ModelShape(
    parameters=8_030_261_248,
    active=7_504_924_672,
    linear=6_979_321_856,
    layers=32,
    parameters_a_layer=218_112_000,
    hidden=4096,
    rows=128_256,
    layer_width=83_968,
    widest=14_336,
    modules={
        "q_proj": 262_144,
        "k_proj": 163_840,
        "v_proj": 163_840,
        "o_proj": 262_144,
        "gate_proj": 589_824,
        "up_proj": 589_824,
        "down_proj": 589_824,
    },
    positions=8192,
    architectures=("LlamaForCausalLM",),
)
GRADER = {"name": "g", "stringCheck": {}}
H100 = GpuKind(memory="80Gi", tflops=989, hour_price=3)


def lengths(tokens: int = 512, count: int = 1000) -> ExampleLengths:
    return ExampleLengths(np.full(count, tokens), np.full(count, tokens))


LENGTHS = lengths()


def spec(
    gpus: int = 1, method: Any = None, adapter: Any = None, budget: Any = None, compute: Any = None, **values: Any
) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "pvc://models/base"},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": method or {"sft": {"packing": False}},
            "adapter": adapter or {"lora": {"rank": 16}},
            "hyperparameters": {"epochs": 2} | values,
            "compute": {"resources": {"gpus": gpus}} | (compute or {}),
            "budget": budget,
        }
    )


def setup_of(job: FineTuneJobSpec, data: ExampleLengths = LENGTHS) -> Setup:
    return build_setup(job, choose(job, len(data.tokens)), LLAMA_8B, data)


def estimate_of(job: FineTuneJobSpec, kind: GpuKind | None) -> Estimate:
    return estimate(setup_of(job), LLAMA_8B, find_rate(job, kind, "USD"))


def misfit(job: FineTuneJobSpec, data: ExampleLengths, memory: str | None) -> str:
    return find_misfit(job, choose(job, len(data.tokens)), LLAMA_8B, data, memory)


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


def test_the_memory_is_the_sum_of_parts_that_can_be_worked_out() -> None:
    setup = setup_of(spec())
    memory = estimate_memory(LLAMA_8B, setup)
    assert (setup.tokens, setup.rows) == (8 * 512, 8)
    assert memory.weights == 2 * 8_030_261_248 + 4 * 41_943_040
    assert (memory.gradients, memory.optimizer) == (4 * 41_943_040, 8 * 41_943_040)
    kept = 32 * 4096 * 4096 * 2
    assert kept < memory.activations < kept + 2**32
    assert memory.total == sum(vars(memory).values())
    assert estimate_memory(LLAMA_8B, setup_of(spec(gpus=2))).gradients == 2 * memory.gradients


def test_four_bits_take_a_quarter_of_the_linear_weights_and_a_smaller_adapter() -> None:
    lora, qlora = (estimate_memory(LLAMA_8B, setup_of(spec(adapter={name: {}}))) for name in ("lora", "qlora"))
    assert 5.0 < qlora.weights / 2**30 < 5.7
    assert qlora.optimizer == lora.optimizer / 2


@pytest.mark.parametrize(
    ("parallelism", "bytes_a_parameter"),
    # ZeRO (2020), section 3.1: 2 for weights, 2 for gradients, 12 for the optimizer; DDP holds no float32 copy.
    [
        ("DDP", (2, 4, 4)),
        ("ZeRO1", (2, 2, 3)),
        ("ZeRO2", (2, 0.5, 3)),
        ("ZeRO3", (0.5, 0.5, 3)),
        ("FSDP2", (0.5, 0.5, 3)),
    ],
)
def test_processes_divide_what_their_parallelism_divides(
    parallelism: str, bytes_a_parameter: tuple[float, float, float]
) -> None:
    job = spec(gpus=4, adapter={"full": {}}, compute={"parallelism": parallelism})
    memory = estimate_memory(LLAMA_8B, setup_of(job))
    found = (memory.weights, memory.gradients, memory.optimizer)
    assert found == tuple(size * LLAMA_8B.parameters for size in bytes_a_parameter)


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


def test_all_logits_of_a_large_vocabulary_outweigh_the_rest() -> None:
    memory = estimate_memory(LLAMA_8B, setup_of(spec(method={"orpo": {}})))
    assert memory.logits > memory.weights / 2


@pytest.mark.parametrize("name", ["row", "rows"])
def test_more_tokens_at_a_time_take_more_memory(name: str) -> None:
    setup = setup_of(spec())
    larger = replace(setup, **{name: 2 * getattr(setup, name)})
    assert estimate_memory(LLAMA_8B, larger).activations > 1.9 * estimate_memory(LLAMA_8B, setup).activations


def test_a_large_vocabulary_costs_no_more_than_a_tile_of_logits() -> None:
    narrow = replace(LLAMA_8B, hidden=256, layer_width=5_632, widest=1_024, layers=4)
    setup = setup_of(spec(microBatchSize=1, maxLength=64, batchSize=8))
    small, large = (estimate_memory(replace(narrow, rows=rows), setup) for rows in (32_000, 256_000))
    assert 0 < small.logits == large.logits < 64 * 32768 * 2
    assert estimate_memory(LLAMA_8B, setup).logits == 0


def test_operations_follow_the_published_rule() -> None:
    setup = setup_of(spec())
    # 2 forwards, 2 backwards through frozen weights, 2 again for checkpointing, and attention beside.
    assert estimate_flops(LLAMA_8B, setup) == pytest.approx(6 * LLAMA_8B.active, rel=0.1)
    assert estimate_flops(LLAMA_8B, replace(setup, on_gpu=False)) == pytest.approx(4 * LLAMA_8B.active, rel=0.1)
    full = setup_of(spec(adapter={"full": {}}))
    assert estimate_flops(LLAMA_8B, full) == pytest.approx(8 * LLAMA_8B.active, rel=0.1)


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


def test_hours_and_cost_follow_from_the_administrators_table() -> None:
    job = spec(gpus=2)
    found = estimate_of(job, H100)
    assert found.hours is not None
    assert found.gpu_hours is not None
    assert found.gpu_hours == pytest.approx(2 * found.hours, abs=1e-3)
    assert found.cost == pytest.approx(3 * found.gpu_hours, abs=1e-3)
    assert (found.trained_tokens, found.steps, found.currency) == (1_024_000, 250, "USD")
    operations = 1_024_000 * estimate_flops(LLAMA_8B, setup_of(job))
    assert found.hours == pytest.approx(operations / (2 * 989e12 * 0.3) / 3600, rel=0.01)
    assert "GiB of memory a GPU" in describe_estimate(found)


@pytest.mark.parametrize(
    ("kind", "changes", "currency", "unknown"),
    [
        (None, {}, None, "gpu.kinds has no tflops and no hourPrice"),
        (GpuKind(tflops=989), {}, None, "has no hourPrice (or the job's budget.gpuHourPrice)"),
        (GpuKind(hour_price=3), {}, None, "has no tflops for"),
        (H100, {"method": {"grpo": {"graders": [GRADER]}}}, None, "method.grpo generates answers while it trains"),
        (GpuKind(tflops=989), {"budget": {"gpuHourPrice": 2, "currency": "EUR"}}, "EUR", None),
        (H100, {"budget": {"gpuHourPrice": 2}}, "USD", None),
    ],
)
def test_what_nobody_has_said_is_unknown_and_named(
    kind: GpuKind | None, changes: Any, currency: str | None, unknown: str | None
) -> None:
    found = estimate_of(spec(**changes), kind)
    assert (found.cost is None, found.currency) == (currency is None, currency)
    assert (unknown is None) == (found.unknown is None)
    assert (unknown or "") in (found.unknown or "")
    if currency:
        assert found.cost == pytest.approx(2 * (found.gpu_hours or 0), abs=1e-3)


def test_a_training_on_cpus_costs_no_gpu_hours() -> None:
    found = estimate_of(spec(gpus=0), None)
    assert (found.gpu_hours, found.cost, found.hours, found.unknown) == (0, 0, None, None)


def test_a_training_that_is_far_too_large_is_refused_with_what_to_do() -> None:
    job, long = spec(maxLength=8192), lengths(8192, 100)
    assert misfit(job, long, "80Gi") == ""
    # The training halves its micro-batch by itself, so 40 GiB may do.
    assert misfit(job, long, "40Gi") == ""
    message = misfit(job, long, "10Gi")
    assert (
        "even one sequence of 8192 tokens at a time, and a GPU has 10.0 GiB: lower hyperparameters.maxLength" in message
    )
    assert "or use adapter.qlora, compute.parallelism FSDP2 with more GPUs, a smaller base model or larger" in message
    assert "FSDP2" not in misfit(spec(adapter={"qlora": {}}, maxLength=8192), long, "4Gi")
    assert misfit(job, long, None) == ""
    assert misfit(spec(gpus=0, maxLength=8192), long, "10Gi") == ""


def test_what_a_formula_might_misjudge_is_not_refused() -> None:
    job = spec(microBatchSize=1)
    needed = estimate_memory(LLAMA_8B, setup_of(job)).total
    assert misfit(job, LENGTHS, f"{round(needed / 1.1 / 2**20)}Mi") == ""
    assert misfit(job, LENGTHS, f"{round(needed / 1.3 / 2**20)}Mi")


@pytest.mark.parametrize(
    ("quantity", "value"), [("80Gi", 80 * 2**30), ("1.5G", 1.5e9), ("500m", 0.5), ("7", 7.0), ("64Mi", 2**26)]
)
def test_quantities_are_read(quantity: str, value: float) -> None:
    assert parse_quantity(quantity) == value
