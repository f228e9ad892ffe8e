"""Chooses the hyperparameters that a job omits: epochs, learning rate, batch sizes; estimates the steps. No I/O."""

import math
from typing import TYPE_CHECKING, Any

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters
from finetune_api.training import MethodName

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_MICRO_BATCH = 8
_PACKED_TOKENS = 1024
"""Tokens of a micro-batch on CPUs if sequences are packed: packing makes one row of them, whose attention costs the
square of its length. With 3072 tokens a training took twice as long as with 512 or 1024 (4 layers, hidden size 256)."""
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_BATCH_SIZE = 8
_BATCH_FRACTION = 0.002
"""OpenAI's default batch size is about 0.2 % of the examples."""
_MIN_STEPS = 100
"""Small datasets get smaller batches until a training has this many steps. OpenAI's defaults train 100 examples in 300
steps; adapters lose more by large batches than by small ones (thinkingmachines.ai/blog/lora)."""
_MIN_PACKED_STEPS = 300
"""A step of packed examples learns from more of them, so a training has fewer steps. From here on the loss after the
same epochs is no worse than without packing (tests/training/test_packing.py)."""
_PROMPTS_PER_STEP = 4
"""Prompts in one step of grpo, each with all its generations."""
_LEARNING_RATES: dict[MethodName, float] = {
    "sft": 2e-5,
    "dpo": 1e-6,
    "kto": 1e-6,
    "orpo": 8e-6,
    "grpo": 1e-6,
    "reward": 1e-5,
}
"""Learning rates for training all weights: TRL's defaults (1.16); for orpo that of its paper (arXiv:2403.07691); for
reward a tenth of TRL's default, which is meant for adapters."""
_LOW_RANK_FACTOR = 10
"""A low-rank adapter needs about ten times the learning rate of all weights (thinkingmachines.ai/blog/lora)."""


def choose_hyperparameters(
    spec: FineTuneJobSpec, lengths: "NDArray[Any]", *, can_pack: bool = True
) -> ChosenHyperparameters:
    """Return the hyperparameters of a training: those that the job sets, and defaults for the others.

    Args:
        spec: the spec of the job.
        lengths: lengths of the training samples in tokens, shape [samples].
        can_pack: whether the model keeps packed examples apart.

    Raises:
        ValueError: the batch cannot be divided as the job requires; the message names the field.
    """
    values = spec.hyperparameters
    rate = _LEARNING_RATES[spec.method.name] * (_LOW_RANK_FACTOR if spec.adapter.low_rank else 1)
    epochs = values.epochs or choose_epochs(len(lengths))
    packing = can_pack and _choose_packing(spec, lengths, epochs)
    sequences = _count_sequences(spec, lengths, packing=packing)
    batch_size = values.batch_size or _choose_batch_size(spec, sequences, epochs, packing=packing)
    micro, accumulation = divide_batch(spec, batch_size, packing=packing)
    return ChosenHyperparameters(
        epochs=epochs,
        learning_rate=values.learning_rate or rate,
        batch_size=batch_size,
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        packing=packing,
    )


def choose_epochs(examples: int) -> float:
    """Return OpenAI's default epochs: 3, more for few examples, fewer for very many."""
    if examples < 34:
        return float(min(25, 100 // max(examples, 1)))
    return float(max(1, min(3, 25_000 // examples)))


def _choose_packing(spec: FineTuneJobSpec, lengths: "NDArray[Any]", epochs: float) -> bool:
    """Return whether to pack examples: as the job says, or if enough steps are left."""
    if spec.method.sft is None or spec.method.sft.packing is not None:
        return bool(spec.method.sft and spec.method.sft.packing)
    smallest_batch = spec.hyperparameters.batch_size or spec.compute.processes
    return _count_sequences(spec, lengths, packing=True) * epochs / smallest_batch >= _MIN_PACKED_STEPS


def _count_sequences(spec: FineTuneJobSpec, lengths: "NDArray[Any]", *, packing: bool) -> int:
    """Return the number of sequences that an epoch trains on."""
    stopping, max_length = spec.hyperparameters.early_stopping, spec.hyperparameters.max_length
    if stopping:
        lengths = lengths[: len(lengths) - count_validation_examples(len(lengths), stopping.fraction)]
    return math.ceil(int(lengths.clip(max=max_length).sum()) / max_length) if packing else len(lengths)


def _choose_batch_size(spec: FineTuneJobSpec, sequences: int, epochs: float, *, packing: bool) -> int:
    """Return a batch size that is a multiple of the micro-batches and, for grpo, of the generations per prompt."""
    unit = spec.compute.processes * (spec.hyperparameters.micro_batch_size or (2 if spec.method.kto else 1))
    enough_steps = sequences * epochs / (_MIN_PACKED_STEPS if packing else _MIN_STEPS)
    largest = min(enough_steps, max(_BATCH_SIZE, sequences * _BATCH_FRACTION))
    target = max(size for size in _BATCH_SIZES if size <= max(largest, 1))
    if spec.method.grpo:
        unit = math.lcm(unit, spec.method.grpo.num_generations)
        target = min(_PROMPTS_PER_STEP, max(sequences, 1)) * spec.method.grpo.num_generations
    return math.ceil(target / unit) * unit


def divide_batch(spec: FineTuneJobSpec, batch_size: int, *, packing: bool) -> tuple[int, int]:
    """Return the micro-batch size and the gradient accumulation steps that make up a batch on each process.

    Raises:
        ValueError: the batch cannot be divided as the job requires; the message names the field.
    """
    processes, grpo = spec.compute.processes, spec.method.grpo
    if batch_size % processes:
        raise ValueError(f"hyperparameters.batchSize {batch_size} is not a multiple of {processes} processes")
    if grpo and batch_size % grpo.num_generations:
        raise ValueError(
            f"hyperparameters.batchSize {batch_size} is not a multiple of"
            f" method.grpo.numGenerations {grpo.num_generations}"
        )
    batch_per_process = batch_size // processes
    micro = spec.hyperparameters.micro_batch_size
    if micro is None:
        largest = min(batch_per_process, _limit_micro_batch(spec, packing=packing))
        micro = max(size for size in range(1, largest + 1) if batch_per_process % size == 0)
    if batch_per_process % micro:
        raise ValueError(
            f"hyperparameters.microBatchSize {micro} does not divide {batch_per_process}, the batch of each process"
        )
    if spec.method.kto and micro < 2:
        raise ValueError(
            "method.kto compares examples of a micro-batch: set hyperparameters.microBatchSize to at least 2"
        )
    return micro, batch_per_process // micro


def _limit_micro_batch(spec: FineTuneJobSpec, *, packing: bool) -> int:
    """Return the largest micro-batch that still speeds up the training."""
    if packing and not spec.compute.resources.gpus:
        return max(1, min(_MAX_MICRO_BATCH, _PACKED_TOKENS // spec.hyperparameters.max_length))
    return _MAX_MICRO_BATCH


def estimate_steps(spec: FineTuneJobSpec, chosen: ChosenHyperparameters, lengths: "NDArray[Any]") -> int:
    """Return the estimated optimizer steps.

    Args:
        spec: the spec of the job.
        chosen: its hyperparameters.
        lengths: lengths of the training samples in tokens, shape [samples].
    """
    grpo = spec.method.grpo
    sequences = _count_sequences(spec, lengths, packing=chosen.packing)
    if grpo:
        steps_per_epoch = sequences * grpo.num_generations // chosen.batch_size
    else:
        steps_per_epoch = math.ceil(sequences / chosen.batch_size)
    return max(1, math.ceil(max(steps_per_epoch, 1) * chosen.epochs))


def explain_no_training(spec: FineTuneJobSpec, chosen: ChosenHyperparameters, samples: int, steps: int) -> str:
    """Return why a training could not take place as the job asks; empty if it can.

    Args:
        spec: the spec of the job.
        chosen: its hyperparameters.
        samples: number of training samples.
        steps: estimated optimizer steps.
    """
    grpo, stopping = spec.method.grpo, spec.hyperparameters.early_stopping
    if stopping:
        samples -= count_validation_examples(samples, stopping.fraction)
    if grpo and samples * grpo.num_generations < chosen.batch_size:
        return (
            f"hyperparameters.batchSize {chosen.batch_size} is more than {samples} prompts with"
            f" {grpo.num_generations} answers each (method.grpo.numGenerations): lower batchSize to at most"
            f" {samples * grpo.num_generations}, or add prompts"
        )
    if samples < 1:
        return "hyperparameters.earlyStopping keeps back all examples: add examples, or remove earlyStopping"
    if stopping and stopping.eval_steps >= steps:
        return (
            f"hyperparameters.earlyStopping.evalSteps {stopping.eval_steps} is not less than the {steps} steps of the"
            " training, so it could never stop early: lower evalSteps, or remove earlyStopping"
        )
    return ""


def explain_few_steps(chosen: ChosenHyperparameters, steps: int) -> str:
    """Return the warning about a training with few steps: what to change for more of them."""
    changes = ["raise hyperparameters.epochs", "add examples"]
    if chosen.batch_size > 1:
        changes.insert(0, f"lower hyperparameters.batchSize from {chosen.batch_size}")
    if chosen.packing:
        changes.insert(0, "set method.sft.packing to false")
    return f"the training has only {steps} steps and may learn little: {', '.join(changes[:-1])}, or {changes[-1]}"


def count_validation_examples(examples: int, fraction: float) -> int:
    """Return the number of training examples that early stopping uses for validation instead."""
    return max(1, round(examples * fraction))


def halve_micro_batch(micro_batch: int, minimum: int) -> int | None:
    """Return the largest divisor of a micro-batch that is at most half of it; None if it is below the minimum."""
    divisors = [size for size in range(minimum, micro_batch // 2 + 1) if micro_batch % size == 0]
    return max(divisors, default=None)
