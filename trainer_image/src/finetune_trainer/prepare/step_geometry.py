"""How a job trains, as far as its memory and its time depend on it: a spec in, numbers out. Pure."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters
from finetune_pod.servability import LORA_MODULES
from numpy.typing import NDArray

from finetune_trainer.prepare.shape import ModelShape
from finetune_trainer.train.schedule import count_kept_back, estimate_steps

Lengths = NDArray[Any]
"""The length of each example in tokens."""
_SHARDED = {"DDP": 0, "ZeRO1": 1, "ZeRO2": 2, "ZeRO3": 3, "FSDP2": 3}
"""What the processes divide: from 1 the optimizer, from 2 the gradients too, from 3 the weights too
(Rajbhandari et al. 2020, ZeRO)."""


@dataclass(frozen=True)
class ExampleLengths:
    """The lengths of all examples in tokens, in one order."""

    tokens: Lengths
    """Over all sequences of an example: both answers of a preference, say."""
    longest: Lengths
    """Of its longest sequence."""


@dataclass(frozen=True)
class Setup:
    """How a process trains, and how much there is to do."""

    processes: int
    on_gpu: bool
    rows: int
    """Sequences of a micro-batch; packed ones lie behind one another in a single row."""
    row: int
    """Tokens of one of them."""
    trained: int
    """Parameters that are trained."""
    is_full: bool
    """Whether these are the model's own, and not beside it."""
    quantized: bool
    sharded: int
    """What the processes divide, as in _SHARDED."""
    copies: int
    """Models that are held: a second one as the reference where nothing can be switched off."""
    more_forwards: int
    """Passes forwards beyond that of the training itself, for references."""
    all_logits: bool
    """Whether all logits are made, and not a tile of them at a time."""
    trained_tokens: int
    """Tokens that are read over all epochs."""
    computed_tokens: float
    """These and what fills up the batches."""
    steps: int
    generates: bool
    """Whether answers are generated while training."""

    @property
    def tokens(self) -> int:
        """Tokens in a process at a time."""
        return self.row * self.rows


def build_setup(
    spec: FineTuneJobSpec, chosen: ChosenHyperparameters, shape: ModelShape, lengths: ExampleLengths
) -> Setup:
    """Return how a job trains."""
    method, longest = spec.method, spec.hyperparameters.max_length
    micro = chosen.micro_batch_size
    packed = method.sft is not None and method.sft.packing
    row = min(longest, int(lengths.longest.max(initial=1)))
    if method.grpo:
        row = int(lengths.longest.max(initial=1)) + method.grpo.max_completion_length
    pairs = 2 if method.name in ("dpo", "orpo", "reward") else 1
    references = {"dpo": 1, "kto": 3, "grpo": 1 if method.grpo and method.grpo.beta else 0}.get(method.name, 0)
    stopping = spec.hyperparameters.early_stopping
    trained_share = 1 - count_kept_back(len(lengths.tokens), stopping.fraction) / len(lengths.tokens) if stopping else 1
    cut = lengths.tokens * (np.minimum(lengths.longest, longest) / np.maximum(lengths.longest, 1))
    return Setup(
        processes=spec.compute.processes,
        on_gpu=spec.compute.resources.gpus > 0,
        rows=1 if packed else micro * pairs,
        row=micro * longest if packed else row,
        trained=count_trained(spec, shape),
        is_full=spec.adapter.full is not None,
        quantized=spec.adapter.qlora is not None,
        sharded=_SHARDED[spec.compute.parallelism] if spec.compute.processes > 1 else 0,
        copies=2 if references and spec.adapter.full else 1,
        more_forwards=references,
        all_logits=method.name == "orpo",
        trained_tokens=round(float(cut.sum()) * chosen.epochs * trained_share),
        computed_tokens=(float(cut.sum()) if packed else _count_filled_up(cut, micro)) * chosen.epochs * trained_share,
        steps=estimate_steps(spec, chosen, lengths.longest),
        generates=method.grpo is not None,
    )


def count_trained(spec: FineTuneJobSpec, shape: ModelShape) -> int:
    """Return how many parameters are trained; of a mixture's layers with experts those outside the experts."""
    low_rank, full = spec.adapter.low_rank, spec.adapter.full
    if low_rank is None:
        layers = full.layers if full else None
        return len(set(layers)) * shape.parameters_a_layer if layers else shape.parameters
    modules = low_rank.target_modules or LORA_MODULES
    share = len(set(low_rank.layers)) / shape.layers if low_rank.layers else 1
    return math.ceil(low_rank.rank * sum(shape.modules.get(name, 0) for name in modules) * share)


def _count_filled_up(lengths: Lengths, micro_batch: int) -> float:
    """Return the tokens of an epoch with what fills up the rows of a batch to the longest of them.

    That is the longest of `b` examples drawn by chance: the k-th shortest of n with probability
    (k/n)^b - ((k-1)/n)^b.
    """
    count = len(lengths)
    chances = np.diff((np.arange(count + 1) / max(count, 1)) ** micro_batch)
    return float(count * (chances @ np.sort(lengths)))
