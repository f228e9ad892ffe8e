"""The sizes of a training step and of the whole training, on which memory and time depend. No I/O."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters
from numpy.typing import NDArray

from finetune_trainer.prepare.shape import ModelShape
from finetune_trainer.train.schedule import count_validation_examples, estimate_steps
from finetune_trainer.train.target_modules import choose_target_modules

Lengths = NDArray[Any]
"""The length of each training sample in tokens."""
_ZERO_STAGES = {"DDP": 0, "ZeRO1": 1, "ZeRO2": 2, "ZeRO3": 3, "FSDP2": 3}
"""The ZeRO stage: 1 shards the optimizer, 2 also the gradients, 3 also the weights (Rajbhandari et al. 2020)."""


@dataclass(frozen=True)
class SampleLengths:
    """The lengths of all training samples in tokens, in the same order."""

    tokens: Lengths
    """Of all sequences of a sample, for example both answers of a preference."""
    longest: Lengths
    """Of the sample's longest sequence."""


@dataclass(frozen=True)
class StepGeometry:
    """The sizes of a step in one process, and of the whole training."""

    processes: int
    on_gpu: bool
    sequences: int
    """Sequences of a micro-batch. Packed examples are one sequence."""
    sequence_length: int
    """In tokens."""
    trainable_parameters: int
    is_full: bool
    """Whether the model's own parameters are trained, and not those of an adapter."""
    quantized: bool
    zero_stage: int
    """What the processes shard, as in _ZERO_STAGES; 0 for nothing."""
    model_copies: int
    """2 if a second model is the reference, 1 if the reference is the model with its adapter disabled."""
    extra_forwards: int
    """Forward passes for references, besides that of the training."""
    all_logits: bool
    """Whether all logits are in memory, and not a tile of them at a time."""
    trained_tokens: int
    """Tokens of all epochs."""
    computed_tokens: float
    """The same with padding."""
    steps: int
    generates: bool
    """Whether answers are generated during training."""

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.sequence_length * self.sequences


def build_geometry(
    spec: FineTuneJobSpec, chosen: ChosenHyperparameters, shape: ModelShape, lengths: SampleLengths
) -> StepGeometry:
    """Return the geometry of a job."""
    method, max_length = spec.method, spec.hyperparameters.max_length
    micro_batch = chosen.micro_batch_size
    packed = chosen.packing
    sequence_length = min(max_length, int(lengths.longest.max(initial=1)))
    if method.grpo:
        sequence_length = int(lengths.longest.max(initial=1)) + method.grpo.max_completion_length
    answers = 2 if method.name in ("dpo", "orpo", "reward") else 1
    references = {"dpo": 1, "kto": 3, "grpo": 1 if method.grpo and method.grpo.beta else 0}.get(method.name, 0)
    stopping = spec.hyperparameters.early_stopping
    trained_share = (
        1 - count_validation_examples(len(lengths.tokens), stopping.fraction) / len(lengths.tokens) if stopping else 1
    )
    truncated = lengths.tokens * (np.minimum(lengths.longest, max_length) / np.maximum(lengths.longest, 1))
    return StepGeometry(
        processes=spec.compute.processes,
        on_gpu=spec.compute.resources.gpus > 0,
        sequences=1 if packed else micro_batch * answers,
        sequence_length=micro_batch * max_length if packed else sequence_length,
        trainable_parameters=count_trainable(spec, shape),
        is_full=spec.adapter.full is not None,
        quantized=spec.adapter.qlora is not None,
        zero_stage=_ZERO_STAGES[spec.compute.parallelism] if spec.compute.processes > 1 else 0,
        model_copies=2 if references and spec.adapter.full else 1,
        extra_forwards=references,
        all_logits=method.name == "orpo",
        trained_tokens=round(float(truncated.sum()) * chosen.epochs * trained_share),
        computed_tokens=(float(truncated.sum()) if packed else _count_padded(truncated, micro_batch))
        * chosen.epochs
        * trained_share,
        steps=estimate_steps(spec, chosen, lengths.longest),
        generates=method.grpo is not None,
    )


def count_trainable(spec: FineTuneJobSpec, shape: ModelShape) -> int:
    """Return how many parameters are trained, as PEFT counts them."""
    low_rank, full = spec.adapter.low_rank, spec.adapter.full
    if low_rank is None:
        layers = full.layers if full else None
        return len(set(layers)) * shape.parameters_per_layer if layers else shape.parameters
    chosen, _ = choose_target_modules(spec, shape.linear_layers, shape.architectures)
    sizes = [shape.linear_layers[name] for name in chosen]
    magnitudes = sum(outputs for _, outputs in sizes) if spec.adapter.dora else 0
    score = shape.hidden_size if spec.method.reward else 0
    return low_rank.rank * sum(map(sum, sizes)) + magnitudes + score


def _count_padded(lengths: Lengths, micro_batch: int) -> float:
    """Return the expected tokens of an epoch with padding to the longest example of each micro-batch.

    The longest of `b` examples drawn at random is the k-th shortest of n with probability (k/n)^b - ((k-1)/n)^b.
    """
    count = len(lengths)
    chances = np.diff((np.arange(count + 1) / max(count, 1)) ** micro_batch)
    return float(count * (chances @ np.sort(lengths)))
