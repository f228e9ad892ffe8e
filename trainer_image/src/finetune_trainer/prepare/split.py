"""Splits examples into those for training and those that are held out for the evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.prepare.scan import SourceScan, dataset_invalid

_FRACTION = 0.1
_MAX_FRACTION = 0.2
_MIN_GROUPS = 3
"""Different examples: at least two are held out, at least one is trained on."""


def choose_fraction(examples: int, min_heldout: int) -> float:
    """Return the fraction to hold out by default: enough for the gates, if that is not too much of a small dataset."""
    return max(_FRACTION, min(_MAX_FRACTION, min_heldout / max(examples, 1)))


def choose_heldout(scan: SourceScan, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return for each example whether it is held out.

    Examples with the same prompt are held out together, so that no held-out prompt is trained on. The choice depends on
    the prompts themselves: when a dataset grows, most of the examples that were held out are held out again, so that a
    new version and the one before are compared on data that neither was trained on.

    Raises:
        StageError: there are too few different examples for both parts.
    """
    prompts = np.asarray(scan.prompt_hashes)
    hashes, group, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
    if len(sizes) < _MIN_GROUPS:
        raise dataset_invalid(
            f"{scan.uri}: at least {_MIN_GROUPS} different examples are needed to hold some out, and there are"
            f" {len(sizes)}: add more, or set dataset.validation"
        )
    key = np.random.default_rng(seed).integers(2**64, dtype=np.uint64, endpoint=False)
    order = np.argsort(hashes.astype(np.uint64) ^ key)
    heldout_size = max(2, round(len(prompts) * fraction))
    count = min(int(np.searchsorted(np.cumsum(sizes[order]), heldout_size)) + 1, len(sizes) - 1)
    return np.isin(group, order[:count])


def write_split(scan: SourceScan, is_heldout: Any, train: Path, heldout: Path) -> None:
    """Move the examples of a scan into two files, each of which appears only when it is complete."""
    parts = {False: train.with_suffix(".part"), True: heldout.with_suffix(".part")}
    with (
        scan.path.open(encoding="utf-8") as examples,
        parts[False].open("w", encoding="utf-8") as train_file,
        parts[True].open("w", encoding="utf-8") as heldout_file,
    ):
        for line, flag in zip(examples, is_heldout, strict=True):
            (heldout_file if flag else train_file).write(line)
    parts[False].replace(train)
    parts[True].replace(heldout)
    scan.path.unlink()
