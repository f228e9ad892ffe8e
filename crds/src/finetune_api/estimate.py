"""The estimate of a training in the status, and the kinds of GPUs that it is computed for."""

from typing import Annotated

from pydantic import Field

from finetune_api.budget import Price
from finetune_api.compute import LabelKey, LabelValue
from finetune_api.model import ApiModel
from finetune_api.quantity import Quantity, StatusQuantity, parse_quantity


class GpuKind(ApiModel):
    """A kind of GPU, as the administrator describes it in the chart. Omitted values are unknown and never guessed."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = {}
    """Labels that the node selector of a pod must contain to get this kind. Default: matches every pod."""
    memory: Quantity | None = None
    """Memory of one GPU, as a Kubernetes quantity."""
    tflops: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Peak performance of dense bf16 matrix products, in TFLOP/s (10^12 floating-point operations per second)."""
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Fraction of the peak that trainings reach. Counts recomputation too (hardware FLOPs utilization)."""
    hour_price: Price | None = None
    """Price of one GPU hour."""


class MemoryEstimate(ApiModel):
    """Estimated peak memory of one GPU by parts, as Kubernetes quantities; on CPUs that of one process."""

    total: StatusQuantity
    """Sum of all parts."""
    weights: StatusQuantity
    """Weights of the base model and the adapter."""
    gradients: StatusQuantity
    """Gradients of the trainable parameters."""
    optimizer: StatusQuantity
    """AdamW's two moments of the trainable parameters."""
    activations: StatusQuantity
    """Activations that are kept for the backward pass, and the working memory of one layer."""
    logits: StatusQuantity
    """Additional memory of the output layer, which is computed in tiles."""
    overhead: StatusQuantity
    """CUDA context and libraries."""


class Estimate(ApiModel):
    """Estimate of the training, computed before a GPU is requested. docs/budget.md has the formulas."""

    trained_tokens: Annotated[int, Field(ge=0)]
    """Number of tokens that are trained on, over all epochs."""
    steps: Annotated[int, Field(ge=1)]
    """Number of optimizer steps."""
    parameters: Annotated[int, Field(ge=0)]
    """Number of parameters of the base model."""
    trainable_parameters: Annotated[int, Field(ge=0)]
    """Number of trainable parameters."""
    memory: MemoryEstimate
    """Estimated peak memory of one GPU."""
    gpu_memory: StatusQuantity | None = None
    """Memory of one GPU, if the administrator has configured it."""
    hours: Annotated[float, Field(ge=0)] | None = None
    """Duration of the training in hours."""
    gpu_hours: Annotated[float, Field(ge=0)] | None = None
    """Duration of the training in hours, times its number of GPUs."""
    cost: Annotated[float, Field(ge=0)] | None = None
    """Cost of these GPU hours."""
    currency: Annotated[str, Field(max_length=3)] | None = None
    """Currency of the cost, as an ISO 4217 code."""
    unknown: Annotated[str, Field(max_length=512)] | None = None
    """Why hours or cost are unknown, and what to set."""


def describe_estimate(estimate: Estimate, *, on_gpu: bool) -> str:
    """Return steps, GPU hours, cost and memory in one line, for a condition's message."""
    memory = _round(float(parse_quantity(estimate.memory.total)) / 2**30)
    if not on_gpu:
        cause = "compute.resources.gpus is 0, so the training runs on CPUs"
        return f"{estimate.steps} steps, {memory} GiB of memory a process; {cause}"
    gpu_hours = f"{_round(estimate.gpu_hours)} GPU hours" if estimate.gpu_hours is not None else "unknown GPU hours"
    cost = f"{estimate.cost:.2f} {estimate.currency}" if estimate.cost is not None else "at an unknown cost"
    return f"{estimate.steps} steps, {gpu_hours}, {cost}, {memory} GiB of memory a GPU"


def _round(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.2g}"
