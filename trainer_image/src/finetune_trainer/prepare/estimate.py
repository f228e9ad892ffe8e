"""What a training will take: memory, hours, cost. Pure; docs/budget.md explains the formulas.

The coefficients of the activations were fitted to what torch allocates in a step of TRL's SFTTrainer; they hold
within a tenth (tests/training/test_estimate.py).
"""

from dataclasses import dataclass

from finetune_api.estimate import Estimate, GpuKind, MemoryEstimate
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.quantity import build_quantity, parse_quantity
from finetune_api.summaries import ChosenHyperparameters

from finetune_trainer.prepare.shape import ModelShape
from finetune_trainer.prepare.step_geometry import ExampleLengths, Setup, build_setup

MARGIN = 1.2
"""By how much the estimate must be above the memory of a GPU before a job is refused."""
_CUDA_BYTES = 2**30
"""Context and kernels of CUDA: 1 to 2 GB, says Hugging Face's "GPU memory usage"; the lower end refuses no job."""
_NF4_BYTES = (4 + 0.127) / 8
"""A weight in 4 bits with its constants, quantised twice: Dettmers et al. 2023 (QLoRA), section 3."""
_TILE = (4096, 32768)
"""Tokens and entries of the vocabulary that TRL's output layer computes at a time (trl.kernels.chunked_logprob)."""
_CPU_TILES = 7
"""Copies of a tile in float32 that TRL makes where there is no Triton."""
_LOGIT_BYTES = 14
"""Where all logits are made: bfloat16, then float32 with their logarithms and their gradients."""
_MASK_BYTES = 3
"""A mask of attention: one byte, and two of it as an addend."""
_MASTER_BYTES = 12
"""Sharded training keeps float32 weights and both moments of AdamW: Rajbhandari et al. 2020 (ZeRO), section 3.1."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the peak, by parts."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    overhead: float

    @property
    def total(self) -> float:
        """All parts together."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.overhead

    def to_api(self) -> MemoryEstimate:
        """Return it as the status has it."""
        parts = {name: build_quantity(value) for name, value in vars(self).items()}
        return MemoryEstimate(total=build_quantity(self.total), **parts)


@dataclass(frozen=True)
class Rate:
    """How fast and how dear the job's GPUs are, as far as anyone has said so."""

    kind: GpuKind | None
    price: float | None
    currency: str


def find_rate(spec: FineTuneJobSpec, kind: GpuKind | None, currency: str) -> Rate:
    """Return what holds for a job: its own price before the administrator's."""
    budget = spec.budget
    if budget and budget.gpu_hour_price is not None:
        return Rate(kind, budget.gpu_hour_price, budget.currency or currency)
    return Rate(kind, kind.hour_price if kind else None, currency)


def estimate_memory(shape: ModelShape, setup: Setup) -> Memory:
    """Return the bytes of one process at the peak of a step."""
    width = 2 if setup.on_gpu or setup.quantized else 4
    layer = setup.tokens * (width * (shape.layer_width + shape.widest) + 8 * shape.hidden)
    backward = setup.tokens * (4 * width * shape.widest + 4 * shape.hidden)
    mask = setup.rows * setup.row**2 * _MASK_BYTES
    # On GPUs each layer keeps its input alone and is computed again: gradient checkpointing (Chen et al. 2016).
    kept = shape.layers * (setup.tokens * shape.hidden * width if setup.on_gpu else layer)
    gathered = shape.parameters_a_layer * width if setup.sharded == 3 or setup.quantized else 0
    computed = backward + gathered + (layer if setup.on_gpu else 0)
    weights, gradients, optimizer = _estimate_states(shape, setup, width)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=kept + mask + computed,
        # The output layer is done when the layers begin to go backwards: only the larger of the two is held.
        logits=max(0.0, _estimate_logits(shape, setup, width) - computed),
        overhead=_CUDA_BYTES if setup.on_gpu else 0,
    )


def _estimate_states(shape: ModelShape, setup: Setup, width: int) -> tuple[float, float, float]:
    """Return the bytes of weights, gradients and optimizer, which do not depend on the batch."""
    quantized = shape.linear if setup.quantized else 0
    weights = setup.copies * ((shape.parameters - quantized) * width + quantized * _NF4_BYTES)
    # peft trains adapters in float32; of a quantised model TRL makes them bfloat16.
    trained = setup.trained * (width if setup.is_full else 2 if setup.quantized else 4)
    weights += 0 if setup.is_full else trained
    # DDP gathers gradients in buckets of the same size.
    gradients = trained * (2 if setup.processes > 1 and not setup.sharded else 1)
    optimizer = _MASTER_BYTES * setup.trained if setup.sharded else 2 * trained
    parts = (weights, gradients, optimizer)
    return tuple(  # type: ignore[return-value]
        part / (setup.processes if setup.sharded >= level else 1) for part, level in zip(parts, (3, 2, 1), strict=True)
    )


def _estimate_logits(shape: ModelShape, setup: Setup, width: int) -> float:
    """Return the bytes of the output layer: TRL makes a tile of the logits at a time, but for orpo."""
    if setup.all_logits:
        return setup.tokens * shape.rows * _LOGIT_BYTES
    tokens = min(setup.tokens, _TILE[0])
    copies = 0 if setup.on_gpu else _CPU_TILES * tokens * min(shape.rows, _TILE[1]) * 4
    return tokens * _TILE[1] * width + copies + setup.tokens * shape.hidden * 4


def estimate_flops(shape: ModelShape, setup: Setup) -> float:
    """Return the floating-point operations of a token, forwards, backwards and what is computed again.

    A product with n weights takes 2n (Kaplan et al. 2020); attention 4 times the row's length a layer and feature,
    by the convention that does not take off what is masked (Chowdhery et al. 2022, appendix B). Going backwards
    costs as much as forwards for the inputs, and as much again for the gradients of what is trained.
    """
    forward = 2 * shape.active + 4 * setup.row * shape.hidden * shape.layers
    again = forward if setup.on_gpu else 0
    own = 2 * min(setup.trained, shape.active) if setup.is_full else 6 * setup.trained
    return 2 * forward + again + own + setup.more_forwards * forward


def estimate(setup: Setup, shape: ModelShape, rate: Rate) -> Estimate:
    """Return all figures of a job."""
    hours, tflops = None, rate.kind.tflops if rate.kind else None
    if setup.on_gpu and not setup.generates and rate.kind and tflops:
        speed = tflops * 1e12 * rate.kind.utilization * setup.processes
        hours = setup.computed_tokens * estimate_flops(shape, setup) / speed / 3600
    gpu_hours = None if hours is None else hours * setup.processes
    cost = None if gpu_hours is None or rate.price is None else gpu_hours * rate.price
    if not setup.on_gpu:
        gpu_hours = cost = 0.0
    return Estimate(
        trained_tokens=setup.trained_tokens,
        steps=setup.steps,
        parameters=shape.parameters,
        trainable_parameters=setup.trained,
        memory=estimate_memory(shape, setup).to_api(),
        gpu_memory=rate.kind.memory if rate.kind and setup.on_gpu else None,
        hours=None if hours is None else round(hours, 4),
        gpu_hours=None if gpu_hours is None else round(gpu_hours, 4),
        cost=None if cost is None else round(cost, 4),
        currency=None if cost is None else rate.currency,
        unknown=_explain_unknown(setup, rate),
    )


def _explain_unknown(setup: Setup, rate: Rate) -> str | None:
    if not setup.on_gpu:
        return None
    if setup.generates:
        return "method.grpo generates answers while it trains, and no formula tells how long that takes"
    missing = [] if rate.kind and rate.kind.tflops else ["tflops"]
    missing += [] if rate.price is not None else ["hourPrice (or the job's budget.gpuHourPrice)"]
    return f"the chart's gpu.kinds has no {' and no '.join(missing)} for this job's GPUs" if missing else None


def find_misfit(
    spec: FineTuneJobSpec, chosen: ChosenHyperparameters, shape: ModelShape, lengths: ExampleLengths, memory: str | None
) -> str:
    """Return why the training cannot fit into a GPU, with what to lower; empty where it may fit, or is not known.

    A training that runs out of memory goes on with a smaller micro-batch, so the smallest one counts. Only what is
    beyond MARGIN is refused: a formula must not stop a training that would run.
    """
    if memory is None or not spec.compute.resources.gpus:
        return ""
    smallest = chosen.model_copy(update={"micro_batch_size": 2 if spec.method.kto else 1})
    needed = estimate_memory(shape, build_setup(spec, smallest, shape, lengths)).total
    room = float(parse_quantity(memory))
    if needed <= room * MARGIN:
        return ""
    others = [] if spec.adapter.qlora else ["adapter.qlora"]
    if not (spec.adapter.qlora or spec.adapter.dora or spec.compute.parallelism in ("FSDP2", "ZeRO3")):
        others.append("compute.parallelism FSDP2 with more GPUs")
    others.append("a smaller base model")
    return (
        f"the training takes about {needed / 2**30:.1f} GiB of memory a GPU, even one sequence of"
        f" {spec.hyperparameters.max_length} tokens at a time, and a GPU has {room / 2**30:.1f} GiB:"
        f" lower hyperparameters.maxLength, or use {', '.join(others)} or larger GPUs"
    )
