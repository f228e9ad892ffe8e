"""How a training runs where the job leaves it open: epochs, learning rate, batches, steps. Pure."""

import math
from typing import TYPE_CHECKING, Any

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters
from finetune_api.training import MethodName

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_MICRO_BATCH = 8
_PACKED_TOKENS = 1024
"""On CPUs packed sequences make one row, whose attention costs the square of its length: with 3072 tokens a training
took twice as long as with 512 or 1024 (4 layers, width 256)."""
_BATCH_SIZES = (8, 16, 32, 64)
_BATCH_SHARE = 0.002
"""OpenAI's default batch size is about 0.2 % of the examples."""
_PROMPTS = 4
"""Prompts in one step of grpo, each with all its generations."""
_LEARNING_RATES: dict[MethodName, float] = {
    "sft": 2e-5,
    "dpo": 1e-6,
    "kto": 1e-6,
    "orpo": 8e-6,
    "grpo": 1e-6,
    "reward": 1e-5,
}
"""For all weights: TRL's defaults (1.16), for orpo that of its paper (arXiv:2403.07691), for reward a tenth of TRL's,
which is meant for adapters."""
_LOW_RANK_FACTOR = 10
"""A low-rank adapter learns with about ten times the rate of the full weights (thinkingmachines.ai/blog/lora)."""


def choose(spec: FineTuneJobSpec, examples: int) -> ChosenHyperparameters:
    """Return what the job trains with on this many examples: what it asks for, and what is chosen for the rest.

    Raises:
        ValueError: the batch cannot be divided as asked; the message names the field.
    """
    values = spec.hyperparameters
    rate = _LEARNING_RATES[spec.method.name] * (_LOW_RANK_FACTOR if spec.adapter.low_rank else 1)
    batch_size = values.batch_size or _choose_batch_size(spec, examples)
    micro, accumulation = divide_batch(spec, batch_size)
    return ChosenHyperparameters(
        epochs=values.epochs or choose_epochs(examples),
        learning_rate=values.learning_rate or rate,
        batch_size=batch_size,
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
    )


def choose_epochs(examples: int) -> float:
    """Return OpenAI's choice: 3, more for few examples, fewer for very many."""
    if examples < 34:
        return float(min(25, 100 // max(examples, 1)))
    return float(max(1, min(3, 25_000 // examples)))


def _choose_batch_size(spec: FineTuneJobSpec, examples: int) -> int:
    """Return a batch that the processes, and for grpo the generations of a prompt, divide."""
    unit = spec.compute.processes
    wanted = max(size for size in _BATCH_SIZES if size <= max(_BATCH_SIZES[0], examples * _BATCH_SHARE))
    if spec.method.grpo:
        unit = math.lcm(unit, spec.method.grpo.num_generations)
        wanted = _PROMPTS * spec.method.grpo.num_generations
    if spec.method.kto:
        unit *= 2
    return math.ceil(wanted / unit) * unit


def divide_batch(spec: FineTuneJobSpec, batch_size: int) -> tuple[int, int]:
    """Divide a batch over processes and accumulation: sequences at a time, and how often.

    Raises:
        ValueError: it cannot be divided as asked.
    """
    processes, grpo = spec.compute.processes, spec.method.grpo
    if batch_size % processes:
        raise ValueError(f"hyperparameters.batchSize {batch_size} is no multiple of {processes} processes")
    if grpo and batch_size % grpo.num_generations:
        raise ValueError(
            f"hyperparameters.batchSize {batch_size} is not a multiple of"
            f" method.grpo.numGenerations {grpo.num_generations}"
        )
    share = batch_size // processes
    micro = spec.hyperparameters.micro_batch_size
    if micro is None:
        largest = min(share, _largest_micro_batch(spec))
        micro = max(size for size in range(1, largest + 1) if share % size == 0)
    if share % micro:
        raise ValueError(f"hyperparameters.microBatchSize {micro} does not divide {share}, the share of a process")
    if spec.method.kto and micro < 2:
        raise ValueError("method.kto compares within a micro-batch: hyperparameters.microBatchSize must be 2 at least")
    return micro, share // micro


def _largest_micro_batch(spec: FineTuneJobSpec) -> int:
    """Return the most sequences at a time that pay."""
    packing = spec.method.sft and spec.method.sft.packing
    if packing and not spec.compute.resources.gpus:
        return max(1, min(_LARGEST_MICRO_BATCH, _PACKED_TOKENS // spec.hyperparameters.max_length))
    return _LARGEST_MICRO_BATCH


def estimate_steps(spec: FineTuneJobSpec, chosen: ChosenHyperparameters, lengths: "NDArray[Any]") -> int:
    """Estimate the optimizer steps from the lengths of the examples in tokens."""
    sft, grpo, stopping = spec.method.sft, spec.method.grpo, spec.hyperparameters.early_stopping
    longest = spec.hyperparameters.max_length
    kept = lengths[: len(lengths) - count_kept_back(len(lengths), stopping.fraction)] if stopping else lengths
    if grpo:
        steps_an_epoch = len(kept) * grpo.num_generations // chosen.batch_size
    elif sft and sft.packing:
        sequences = math.ceil(int(kept.clip(max=longest).sum()) / longest)
        steps_an_epoch = math.ceil(sequences / chosen.batch_size)
    else:
        steps_an_epoch = math.ceil(len(kept) / chosen.batch_size)
    return max(1, math.ceil(max(steps_an_epoch, 1) * chosen.epochs))


def count_kept_back(examples: int, fraction: float) -> int:
    """Return how many training examples early stopping looks at instead of training on them."""
    return max(1, round(examples * fraction))


def halve(micro_batch: int, needed: int) -> int | None:
    """Return a micro-batch of at most half the size that divides it; None where there is none of the size needed."""
    smaller = [size for size in range(needed, micro_batch // 2 + 1) if micro_batch % size == 0]
    return max(smaller, default=None)
