"""What a training will take: the figures in the status, and the GPU that they are for."""

from typing import Annotated

from pydantic import Field

from finetune_api.budget import Price
from finetune_api.compute import LabelKey, LabelValue
from finetune_api.model import ApiModel
from finetune_api.quantity import Quantity, parse_quantity


class GpuKind(ApiModel):
    """A kind of GPU, as the administrator describes it. What is left out is unknown, and never guessed."""

    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = {}
    """The pods whose node selector holds these labels get this kind; none match every pod."""
    memory: Quantity | None = None
    """Memory of one GPU, as a Kubernetes quantity."""
    tflops: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Peak of dense bf16 matrix products, in 10^12 floating-point operations a second."""
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the peak that trainings reach, with what gradient checkpointing computes twice counted twice."""
    hour_price: Price | None = None
    """Price of one hour of one GPU."""


class MemoryEstimate(ApiModel):
    """Peak memory of one GPU by its parts, as Kubernetes quantities; of a process, where it trains on CPUs."""

    total: Quantity
    """All parts together."""
    weights: Quantity
    """The base model and the adapter."""
    gradients: Quantity
    """Gradients of what is trained."""
    optimizer: Quantity
    """The two moments that AdamW keeps of what is trained."""
    activations: Quantity
    """What the forward pass keeps for the backward pass, and what a layer needs while it is computed."""
    logits: Quantity
    """What the output layer needs beyond that, tile by tile."""
    overhead: Quantity
    """The CUDA context and its libraries."""


class Estimate(ApiModel):
    """What the training will take, computed before a GPU is asked for. docs/budget.md has the formulas."""

    trained_tokens: Annotated[int, Field(ge=0)]
    """Tokens that the training reads, over all epochs."""
    steps: Annotated[int, Field(ge=1)]
    """Optimizer steps."""
    parameters: Annotated[int, Field(ge=0)]
    """Parameters of the base model."""
    trainable_parameters: Annotated[int, Field(ge=0)]
    """Parameters that are trained."""
    memory: MemoryEstimate
    """Peak memory of one GPU."""
    gpu_memory: Quantity | None = None
    """Memory that one GPU has, where the administrator said it."""
    hours: Annotated[float, Field(ge=0)] | None = None
    """Hours of the training."""
    gpu_hours: Annotated[float, Field(ge=0)] | None = None
    """Hours of the training, times its GPUs."""
    cost: Annotated[float, Field(ge=0)] | None = None
    """Cost of the GPU hours."""
    currency: Annotated[str, Field(max_length=3)] | None = None
    """Currency of the cost."""
    unknown: Annotated[str, Field(max_length=512)] | None = None
    """Why there are no hours or no cost, and what to set."""


def describe_estimate(estimate: Estimate) -> str:
    """Return the figures in one line, for a condition's message."""
    gpu_hours = f"{_round(estimate.gpu_hours)} GPU hours" if estimate.gpu_hours is not None else "unknown GPU hours"
    cost = f"{estimate.cost:.2f} {estimate.currency}" if estimate.cost is not None else "at an unknown cost"
    memory = _round(float(parse_quantity(estimate.memory.total)) / 2**30)
    return f"{estimate.steps} steps, {gpu_hours}, {cost}, {memory} GiB of memory a GPU"


def _round(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.2g}"
