"""Splits the examples into those for training and those that are held out for the evaluation."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.prepare.mix import Copies, Mix
from finetune_trainer.prepare.scan import dataset_invalid

_FRACTION = 0.1
_MAX_FRACTION = 0.2
_MIN_GROUPS = 3
"""Different examples: at least two are held out, at least one is trained on."""


def choose_fraction(examples: int, min_heldout: int) -> float:
    """Return the fraction to hold out by default: enough for the gates, if that is not too much of a small dataset."""
    return max(_FRACTION, min(_MAX_FRACTION, min_heldout / max(examples, 1)))


def choose_heldout(mix: Mix, fraction: float, seed: int) -> NDArray[np.intp]:
    """Return the indices of the held-out examples, in a random order.

    Examples with the same prompt are held out together, whatever their source, so that no held-out prompt is trained
    on. The choice depends on the prompts themselves: when a dataset grows, most of the examples that were held out are
    held out again, so that a new version and the one before are compared on data that neither was trained on. An
    evaluation of the first examples reads a fair share of each source.

    Raises:
        StageError: there are too few different examples for both parts.
    """
    included = mix.included
    prompts = mix.collect("prompt_hashes")[included]
    hashes, group, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
    if len(sizes) < _MIN_GROUPS:
        raise dataset_invalid(
            f"{mix.name}: at least {_MIN_GROUPS} different examples are needed to hold some out, and there are"
            f" {len(sizes)}: add more, or set dataset.validation"
        )
    key = np.random.default_rng(seed).integers(2**64, dtype=np.uint64, endpoint=False)
    order = np.argsort(hashes.astype(np.uint64) ^ key)
    heldout_size = max(2, round(len(prompts) * fraction))
    count = min(int(np.searchsorted(np.cumsum(sizes[order]), heldout_size)) + 1, len(sizes) - 1)
    rank = np.argsort(order)[group]
    return included[np.argsort(rank, kind="stable")[: sizes[order[:count]].sum()]]


def write_train(mix: Mix, copies: Copies, path: Path) -> None:
    """Write the examples of an epoch to a file, which appears only when it is complete."""
    partial = path.with_suffix(".part")
    with partial.open("wb") as out:
        for scan, counts in zip(mix.scans, mix.split(copies), strict=True):
            with scan.path.open("rb") as examples:
                out.writelines(line * int(count) for line, count in zip(examples, counts, strict=True))
    partial.replace(path)


def write_heldout(mix: Mix, heldout: NDArray[np.intp], path: Path) -> None:
    """Write the held-out examples to a file, which appears only when it is complete."""
    partial = path.with_suffix(".part")
    with ExitStack() as stack:
        out = stack.enter_context(partial.open("wb"))
        files = {scan.path: stack.enter_context(scan.path.open("rb")) for scan in mix.scans}
        for index in heldout:
            scan, position = mix.find(int(index))
            files[scan.path].seek(scan.offsets[position])
            out.write(files[scan.path].readline())
    partial.replace(path)
