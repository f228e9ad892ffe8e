"""How long a training is: epochs, batches, steps. Pure."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from finetune_api.finetunejob import FineTuneJobSpec

Lengths = np.ndarray[Any, np.dtype[Any]]
"""The length of each example in tokens."""

_LARGEST_MICRO_BATCH = 8


@dataclass(frozen=True)
class Batches:
    """How one optimizer step is made up on each device."""

    micro_batch: int
    accumulation: int


def choose_epochs(spec: FineTuneJobSpec, examples: int) -> float:
    """Return the epochs asked for, or OpenAI's choice: 3, more for few examples, fewer for very many."""
    if spec.hyperparameters.epochs is not None:
        return spec.hyperparameters.epochs
    if examples < 34:
        return float(min(25, 100 // max(examples, 1)))
    return float(max(1, min(3, 25_000 // examples)))


def choose_batches(spec: FineTuneJobSpec, devices: int) -> Batches:
    """Divide the batch over devices and accumulation so that the product is the batch size asked for.

    Raises:
        ValueError: the batch size cannot be divided among the devices.
    """
    batch_size = spec.hyperparameters.batch_size
    if batch_size % devices:
        raise ValueError(f"hyperparameters.batchSize {batch_size} is no multiple of {devices} devices")
    share = batch_size // devices
    micro = spec.hyperparameters.micro_batch_size
    if micro is None:
        micro = max(size for size in range(1, min(share, _LARGEST_MICRO_BATCH) + 1) if share % size == 0)
    if share % micro:
        raise ValueError(f"hyperparameters.microBatchSize {micro} does not divide {share}, the share of a device")
    return Batches(micro, share // micro)


def estimate_steps(spec: FineTuneJobSpec, lengths: Lengths) -> int:
    """Estimate the optimizer steps from the lengths of the conversations in tokens."""
    longest = spec.hyperparameters.max_length
    cut = np.minimum(lengths, longest)
    method = spec.method.sft
    sequences = math.ceil(int(cut.sum()) / longest) if method and method.packing else len(cut)
    steps_an_epoch = math.ceil(sequences / spec.hyperparameters.batch_size)
    return max(1, math.ceil(steps_an_epoch * choose_epochs(spec, len(lengths))))
