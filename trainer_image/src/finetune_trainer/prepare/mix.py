"""The training data of all sources as one: how many times an epoch trains on each example. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from finetune_api.conditions import Reason
from finetune_api.data import MixedSource
from numpy.typing import NDArray

from finetune_trainer.failures import StageError
from finetune_trainer.prepare.row_issues import RowIssues
from finetune_trainer.prepare.scan import SourceScan
from finetune_trainer.prepare.step_geometry import SampleLengths

Copies = NDArray[np.int64]
"""How many times an epoch trains on each example."""


@dataclass(frozen=True)
class Mix:
    """The training sources. Arrays have a value for each example of all sources, one source after the other."""

    scans: Sequence[SourceScan]
    copies: Copies
    """0 for an example that the weight of its source leaves out; the held-out examples are not left out here."""

    @property
    def name(self) -> str:
        """What messages call the training data."""
        return self.scans[0].uri if len(self.scans) == 1 else "dataset.mix"

    @property
    def formats(self) -> str:
        """The formats of the sources, each once, for messages."""
        return ", ".join(dict.fromkeys(str(scan.format) for scan in self.scans))

    @property
    def warnings(self) -> RowIssues:
        """The warnings of the first source, with which the report lists those about the whole job."""
        return self.scans[0].warnings

    @property
    def included(self) -> NDArray[np.intp]:
        """The indices of the examples that are trained on or held out."""
        return np.flatnonzero(self.copies)

    def collect(self, name: str) -> NDArray[Any]:
        """Return an array of the scans, by its name."""
        return np.concatenate([np.asarray(getattr(scan, name)) for scan in self.scans])

    def split(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the parts of an array that belong to each source."""
        return np.split(values, np.cumsum([len(scan.row_numbers) for scan in self.scans])[:-1])

    def find(self, index: int) -> tuple[SourceScan, int]:
        """Return the source of an example, and its index in it."""
        for scan in self.scans:
            if index < len(scan.row_numbers):
                return scan, index
            index -= len(scan.row_numbers)
        raise IndexError(index)

    def measure(self, copies: Copies) -> SampleLengths:
        """Return the lengths of the samples of an epoch, each as often as it is trained on."""
        sample_copies = np.repeat(copies, self.collect("sample_counts"))
        tokens, longest = self.collect("sample_tokens"), self.collect("sample_longest")
        return SampleLengths(np.repeat(tokens, sample_copies), np.repeat(longest, sample_copies))


def build_mix(sources: Mapping[str, MixedSource], scans: Sequence[SourceScan], seed: int) -> Mix:
    """Return the mix of the training sources.

    Args:
        sources: the sources by their fields in the spec.
        scans: their scans, in the same order.
        seed: `hyperparameters.seed`.

    Raises:
        StageError: the weight of a source leaves out all of its examples.
    """
    copies = []
    for (field, source), scan in zip(sources.items(), scans, strict=True):
        copies.append(count_copies(np.asarray(scan.example_hashes), source.weight, seed))
        if not copies[-1].any():
            raise StageError(
                Reason.INVALID_SPEC,
                f"{field}.weight is {source.weight:g}, which leaves none of {len(scan.row_numbers)} examples of"
                f" {source.uri}: raise it, or remove the source",
            )
    return Mix(scans, np.concatenate(copies))


def count_copies(hashes: NDArray[np.uint64], weight: float, seed: int) -> Copies:
    """Return how many times an epoch trains on each example of a source.

    The choice for the fraction of a weight depends on the examples themselves: a larger weight keeps the examples of a
    smaller one, and most of them stay chosen when others are added.

    Args:
        hashes: of the examples, see `hash_example`.
        weight: see `dataset.mix[].weight`.
        seed: of the choice. It is independent of the choice of the held-out examples.
    """
    whole = int(weight)
    copies = np.full(len(hashes), whole)
    key = np.random.default_rng((seed, 1)).integers(2**64, dtype=np.uint64, endpoint=False) | np.uint64(1)
    order = np.argsort(hashes * key, kind="stable")
    copies[order[: round(len(hashes) * (weight - whole))]] += 1
    return copies
