"""Every metric as a function of how often each example counts, so that one bootstrap serves them all. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from finetune_api.evaluation import Metric
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Estimator = Callable[[Floats], Floats]
"""Takes weights, a row for each resample and a column for each example; returns the metric of each resample, NaN
where no example with a weight bears on it."""


@dataclass(frozen=True)
class Sample:
    """One held-out example, answered by one model."""

    nll: float = 0.0
    """Negative log-likelihood of the target tokens, nats, summed."""
    tokens: int = 0
    """How many target tokens there are."""
    answer: str | None = None
    """None where there is nothing to answer, as in plain text."""
    scores: dict[str, float] = field(default_factory=dict)
    """Scores from 0 to 1 by the metric's name, `Grader name` for a grader; only those that apply to the example."""
    labels: tuple[str, str] | None = None
    """The answer and the reference, normalised, where they are labels."""
    bleu: tuple[int, ...] | None = None
    """What the BLEU of a corpus is summed from."""
    judged: tuple[bool, float] | None = None
    """Of a judged completion: whether it is a good one, and its mean log-likelihood per token."""


def build_estimator(metric: Metric, name: str, samples: list[Sample]) -> Estimator:
    """Return how a metric follows from the samples of one model.

    Args:
        metric: the metric.
        name: its name in `Sample.scores`.
        samples: one for each example.
    """
    if metric == "Perplexity":
        return _perplexity(samples)
    if metric == "Bleu":
        return _bleu(samples)
    if metric == "ClassificationF1":
        return _macro_f1([one.labels for one in samples])
    if metric == "PreferenceAccuracy" and any(one.judged for one in samples):
        return _ranking([one.judged for one in samples])
    return _mean([one.scores.get(name) for one in samples])


def _perplexity(samples: list[Sample]) -> Estimator:
    """exp(sum of negative log-likelihoods / number of target tokens)."""
    nll, tokens = (np.array([getattr(one, part) for one in samples], dtype=float) for part in ("nll", "tokens"))
    return lambda weights: np.exp(_divide(weights @ nll, weights @ tokens))


def _mean(scores: list[float | None]) -> Estimator:
    """The mean over the examples that have the score."""
    values = np.array([score or 0.0 for score in scores])
    counted = np.array([score is not None for score in scores], dtype=float)
    return lambda weights: _divide(weights @ values, weights @ counted)


def _bleu(samples: list[Sample]) -> Estimator:
    """The BLEU of a corpus (sacrebleu), from 0 to 1, of its summed statistics."""
    from sacrebleu.metrics.bleu import BLEU

    rows = np.array([one.bleu or (0,) * 10 for one in samples], dtype=float)

    def estimate(weights: Floats) -> Floats:
        sums = np.rint(weights @ rows).astype(int).tolist()
        scores = [BLEU.compute_bleu(one[2:6], one[6:], one[0], one[1], smooth_method="exp").score for one in sums]
        return np.minimum(np.array(scores) / 100, 1.0)

    return estimate


def _macro_f1(labels: list[tuple[str, str] | None]) -> Estimator:
    """The mean over the references' labels of 2 · right / (given + wanted)."""
    names = sorted({pair[1] for pair in labels if pair})
    index = {name: number for number, name in enumerate(names)}
    given, wanted = (np.zeros((len(labels), len(names))) for _ in range(2))
    for row, pair in enumerate(labels):
        if pair is None:
            continue
        wanted[row, index[pair[1]]] = 1
        if pair[0] in index:
            given[row, index[pair[0]]] = 1

    def estimate(weights: Floats) -> Floats:
        sum_wanted, sum_given, right = weights @ wanted, weights @ given, weights @ (given * wanted)
        f1 = np.divide(2 * right, sum_given + sum_wanted, out=np.zeros_like(right), where=sum_wanted > 0)
        return _divide(f1.sum(axis=1), (sum_wanted > 0).sum(axis=1).astype(float))

    return estimate


def _ranking(judged: list[tuple[bool, float] | None]) -> Estimator:
    """The share of all pairs of a good and another completion in which the good one is likelier; a tie counts half.

    It is the area under the ROC curve of the likelihoods.
    """
    kept = [row for row, one in enumerate(judged) if one]
    likelihoods = np.array([one[1] for one in judged if one])
    is_good = np.array([one[0] for one in judged if one], dtype=float)
    order = np.argsort(likelihoods, kind="stable")
    _, starts = np.unique(likelihoods[order], return_index=True)

    def estimate(weights: Floats) -> Floats:
        sorted_weights = weights[:, np.array(kept)[order]]
        good = np.add.reduceat(sorted_weights * is_good[order], starts, axis=1)
        bad = np.add.reduceat(sorted_weights * (1 - is_good[order]), starts, axis=1)
        below = np.cumsum(bad, axis=1) - bad / 2
        return _divide((good * below).sum(axis=1), good.sum(axis=1) * bad.sum(axis=1))

    return estimate


def _divide(over: Floats, under: Floats) -> Floats:
    """Return the quotients, NaN where nothing is divided by nothing."""
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
