"""Estimates memory, hours and cost of a training. No I/O. docs/budget.md explains the formulas.

The coefficients of the activations were fitted to the allocations of torch in a step of TRL's SFTTrainer; the error is
at most a tenth (tests/training/test_estimate.py).
"""

from dataclasses import dataclass

from finetune_api.estimate import Estimate, GpuKind, MemoryEstimate
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.quantity import build_quantity, parse_quantity
from finetune_api.summaries import ChosenHyperparameters

from finetune_trainer.prepare.shape import ModelShape
from finetune_trainer.prepare.step_geometry import SampleLengths, StepGeometry, build_geometry

MARGIN = 1.2
"""A job is refused if the estimate is larger than the memory of a GPU times this."""
_CUDA_BYTES = 2**30
"""Context and kernels of CUDA take 1 to 2 GB (Hugging Face, "GPU memory usage"). The lower end refuses fewer jobs."""
_NF4_BYTES = (4 + 0.127) / 8
"""A weight in 4 bits with its quantization constants, doubly quantized: Dettmers et al. 2023 (QLoRA), section 3."""
_TILE = (4096, 32768)
"""Tokens and vocabulary entries that TRL's output layer computes at a time (trl.kernels.chunked_logprob)."""
_CPU_TILES = 7
"""Copies of a tile in float32 that TRL makes without Triton."""
_LOGIT_BYTES = 14
"""Per logit if all of them are in memory: bfloat16, then float32 with logarithms and gradients."""
_MASK_BYTES = 3
"""Per entry of the attention mask: one byte as a boolean, two as a bias."""
_MASTER_BYTES = 12
"""Per parameter: sharded training keeps float32 weights and both moments of AdamW (Rajbhandari et al. 2020, ZeRO,
section 3.1)."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the peak of a step."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    overhead: float

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.overhead

    def to_api(self) -> MemoryEstimate:
        """Return the memory for the status."""
        parts = {name: build_quantity(value) for name, value in vars(self).items()}
        return MemoryEstimate(total=build_quantity(self.total), **parts)


@dataclass(frozen=True)
class GpuRate:
    """Speed and price of the job's GPUs, as far as they are known."""

    kind: GpuKind | None
    price: float | None
    """Of a GPU hour."""
    currency: str


def choose_rate(spec: FineTuneJobSpec, kind: GpuKind | None, currency: str) -> GpuRate:
    """Return the rate of a job. Its own price takes precedence over the administrator's."""
    budget = spec.budget
    if budget and budget.gpu_hour_price is not None:
        return GpuRate(kind, budget.gpu_hour_price, budget.currency or currency)
    return GpuRate(kind, kind.hour_price if kind else None, currency)


def estimate_memory(shape: ModelShape, geometry: StepGeometry) -> Memory:
    """Return the bytes of one process at the peak of a step."""
    width = 2 if geometry.on_gpu or geometry.quantized else 4
    layer = geometry.tokens * (width * (shape.layer_width + shape.max_width) + 8 * shape.hidden_size)
    backward = geometry.tokens * (4 * width * shape.max_width + 4 * shape.hidden_size)
    mask = geometry.sequences * geometry.sequence_length**2 * _MASK_BYTES
    # On GPUs each layer keeps only its input and is recomputed: gradient checkpointing (Chen et al. 2016).
    kept = shape.layers * (geometry.tokens * shape.hidden_size * width if geometry.on_gpu else layer)
    gathered = shape.parameters_per_layer * width if geometry.zero_stage == 3 or geometry.quantized else 0
    computed = backward + gathered + (layer if geometry.on_gpu else 0)
    weights, gradients, optimizer = _estimate_states(shape, geometry, width)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=kept + mask + computed,
        # The logits are freed before the backward pass of the layers: only the larger of the two counts.
        logits=max(0.0, _estimate_logits(shape, geometry, width) - computed),
        overhead=_CUDA_BYTES if geometry.on_gpu else 0,
    )


def _estimate_states(shape: ModelShape, geometry: StepGeometry, width: int) -> tuple[float, float, float]:
    """Return the bytes of weights, gradients and optimizer, which are independent of the batch."""
    quantized = shape.linear_parameters if geometry.quantized else 0
    weights = geometry.model_copies * ((shape.parameters - quantized) * width + quantized * _NF4_BYTES)
    # peft trains adapters in float32. TRL converts those of a quantized model to bfloat16.
    trained = geometry.trainable_parameters * (width if geometry.is_full else 2 if geometry.quantized else 4)
    weights += 0 if geometry.is_full else trained
    # DDP copies gradients into buckets of the same size.
    gradients = trained * (2 if geometry.processes > 1 and not geometry.zero_stage else 1)
    optimizer = _MASTER_BYTES * geometry.trainable_parameters if geometry.zero_stage else 2 * trained
    parts = (weights, gradients, optimizer)
    return tuple(  # type: ignore[return-value]
        part / (geometry.processes if geometry.zero_stage >= level else 1)
        for part, level in zip(parts, (3, 2, 1), strict=True)
    )


def _estimate_logits(shape: ModelShape, geometry: StepGeometry, width: int) -> float:
    """Return the bytes of the output layer: TRL computes a tile of the logits at a time, except for orpo."""
    if geometry.all_logits:
        return geometry.tokens * shape.embedding_rows * _LOGIT_BYTES
    tokens = min(geometry.tokens, _TILE[0])
    copies = 0 if geometry.on_gpu else _CPU_TILES * tokens * min(shape.embedding_rows, _TILE[1]) * 4
    return tokens * _TILE[1] * width + copies + geometry.tokens * shape.hidden_size * 4


def estimate_flops(shape: ModelShape, geometry: StepGeometry) -> float:
    """Return the floating-point operations per token of forward and backward pass, with recomputation.

    A product with n weights takes 2n operations (Kaplan et al. 2020). Attention takes 4 times the sequence length per
    layer and feature, masked positions included (Chowdhery et al. 2022, appendix B). The backward pass costs as much as
    the forward pass for the inputs, and as much again for the gradients of the trainable parameters.
    """
    forward = 2 * shape.active_parameters + 4 * geometry.sequence_length * shape.hidden_size * shape.layers
    recomputed = forward if geometry.on_gpu else 0
    trainable = (
        2 * min(geometry.trainable_parameters, shape.active_parameters)
        if geometry.is_full
        else 6 * geometry.trainable_parameters
    )
    return 2 * forward + recomputed + trainable + geometry.extra_forwards * forward


def estimate_training(geometry: StepGeometry, shape: ModelShape, rate: GpuRate) -> Estimate:
    """Return the estimate of a job."""
    hours, tflops = None, rate.kind.tflops if rate.kind else None
    if geometry.on_gpu and not geometry.generates and rate.kind and tflops:
        speed = tflops * 1e12 * rate.kind.utilization * geometry.processes
        hours = geometry.computed_tokens * estimate_flops(shape, geometry) / speed / 3600
    gpu_hours = None if hours is None else hours * geometry.processes
    cost = None if gpu_hours is None or rate.price is None else gpu_hours * rate.price
    if not geometry.on_gpu:
        gpu_hours = cost = 0.0
    return Estimate(
        trained_tokens=geometry.trained_tokens,
        steps=geometry.steps,
        parameters=shape.parameters,
        trainable_parameters=geometry.trainable_parameters,
        memory=estimate_memory(shape, geometry).to_api(),
        gpu_memory=rate.kind.memory if rate.kind and geometry.on_gpu else None,
        hours=None if hours is None else round(hours, 4),
        gpu_hours=None if gpu_hours is None else round(gpu_hours, 4),
        cost=None if cost is None else round(cost, 4),
        currency=None if cost is None else rate.currency,
        unknown=_explain_unknown(geometry, rate),
    )


def _explain_unknown(geometry: StepGeometry, rate: GpuRate) -> str | None:
    if not geometry.on_gpu:
        return None
    if geometry.generates:
        return "method.grpo generates answers during training, and no formula estimates how long that takes"
    missing = [] if rate.kind and rate.kind.tflops else ["tflops"]
    missing += [] if rate.price is not None else ["hourPrice (or the job's budget.gpuHourPrice)"]
    return f"the chart's gpu.kinds has no {' and no '.join(missing)} for this job's GPUs" if missing else None


def explain_memory_shortage(
    spec: FineTuneJobSpec, chosen: ChosenHyperparameters, shape: ModelShape, lengths: SampleLengths, memory: str | None
) -> str:
    """Return why the training does not fit into a GPU and what to lower; empty if it may fit or nobody knows.

    A training that runs out of memory continues with a smaller micro-batch, so the smallest one is estimated. MARGIN
    keeps an error of the formula from refusing a training that fits.

    Args:
        spec: the job's.
        chosen: its hyperparameters.
        shape: of its base model.
        lengths: of its examples.
        memory: of a GPU, as a Kubernetes quantity; None if unknown.
    """
    if memory is None or not spec.compute.resources.gpus:
        return ""
    smallest = chosen.model_copy(update={"micro_batch_size": 2 if spec.method.kto else 1})
    needed = estimate_memory(shape, build_geometry(spec, smallest, shape, lengths)).total
    available = float(parse_quantity(memory))
    if needed <= available * MARGIN:
        return ""
    remedies = [] if spec.adapter.qlora else ["adapter.qlora"]
    if not (spec.adapter.qlora or spec.adapter.dora or spec.compute.parallelism in ("FSDP2", "ZeRO3")):
        remedies.append("compute.parallelism FSDP2 with more GPUs")
    remedies.append("a smaller base model")
    return (
        f"the training needs about {needed / 2**30:.1f} GiB of memory per GPU, even with one sequence of"
        f" {spec.hyperparameters.max_length} tokens at a time, but a GPU has {available / 2**30:.1f} GiB:"
        f" lower hyperparameters.maxLength, or use {', '.join(remedies)} or larger GPUs"
    )
