"""Each metric as a function of the examples' weights, so that one bootstrap works for all metrics. No I/O."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from finetune_api.evaluation import Metric
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Estimator = Callable[[Floats], Floats]
"""Maps weights of shape (resamples, examples) to the metric of each resample. The metric is NaN where it applies to no
example with a weight above 0."""


@dataclass(frozen=True)
class Sample:
    """Measurements of one model on one held-out example."""

    nll: float = 0.0
    """Summed negative log-likelihood of the target tokens, in nats."""
    tokens: int = 0
    """Number of target tokens."""
    answer: str | None = None
    """None if the example has no prompt, as plain text."""
    scores: dict[str, float] = field(default_factory=dict)
    """Scores from 0 to 1 by the metric's name, `Grader name` for a grader; only those that apply to the example."""
    labels: tuple[str, str] | None = None
    """Normalized answer and reference for ClassificationF1."""
    bleu: tuple[int, ...] | None = None
    """Statistics for the BLEU of the corpus: see `bleu_statistics`."""
    labeled_logprob: tuple[bool, float] | None = None
    """For a completion with a label (KTO): the label, and the mean log-likelihood per token."""


def build_estimator(metric: Metric, name: str, samples: list[Sample]) -> Estimator:
    """Return the estimator of a metric for the samples of one model.

    Args:
        metric: the metric.
        name: its name in `Sample.scores`.
        samples: one per example.
    """
    if metric == "Perplexity":
        return _build_perplexity(samples)
    if metric == "Bleu":
        return _build_bleu(samples)
    if metric == "ClassificationF1":
        return _build_macro_f1([sample.labels for sample in samples])
    if metric == "PreferenceAccuracy" and any(sample.labeled_logprob for sample in samples):
        return _build_ranking([sample.labeled_logprob for sample in samples])
    return _build_mean([sample.scores.get(name) for sample in samples])


def count_measured(metric: Metric, name: str, samples: list[Sample]) -> int:
    """Return the number of examples to which a metric applies.

    Args:
        metric: the metric.
        name: its name in `Sample.scores`.
        samples: one per example.
    """
    if metric == "Perplexity":
        return sum(sample.tokens > 0 for sample in samples)
    if metric == "Bleu":
        return sum(sample.bleu is not None for sample in samples)
    if metric == "ClassificationF1":
        return sum(sample.labels is not None for sample in samples)
    if labels := [sample.labeled_logprob[0] for sample in samples if sample.labeled_logprob]:
        # Good completions are compared with bad ones, so the rarer kind decides how much is known.
        return min(labels.count(True), labels.count(False))
    return sum(name in sample.scores for sample in samples)


def _build_perplexity(samples: list[Sample]) -> Estimator:
    """exp(sum of negative log-likelihoods / number of target tokens)."""
    nll, tokens = (np.array([getattr(sample, name) for sample in samples], dtype=float) for name in ("nll", "tokens"))
    return lambda weights: np.exp(_divide(weights @ nll, weights @ tokens))


def _build_mean(scores: list[float | None]) -> Estimator:
    """Mean over the examples that have the score."""
    values = np.array([score or 0.0 for score in scores])
    has_score = np.array([score is not None for score in scores], dtype=float)
    return lambda weights: _divide(weights @ values, weights @ has_score)


def _build_bleu(samples: list[Sample]) -> Estimator:
    """BLEU of the corpus from its summed statistics (sacrebleu), from 0 to 1."""
    from sacrebleu.metrics.bleu import BLEU

    statistics = np.array([sample.bleu or (0,) * 10 for sample in samples], dtype=float)

    def estimate(weights: Floats) -> Floats:
        sums = np.rint(weights @ statistics).astype(int).tolist()
        scores = [
            BLEU.compute_bleu(counts[:4], counts[4:], length, reference_length, smooth_method="exp").score
            for length, reference_length, *counts in sums
        ]
        return np.minimum(np.array(scores) / 100, 1.0)

    return estimate


def _build_macro_f1(labels: list[tuple[str, str] | None]) -> Estimator:
    """Mean over the references' labels of F1 = 2 · correct / (predicted + actual)."""
    names = sorted({pair[1] for pair in labels if pair})
    index = {name: number for number, name in enumerate(names)}
    predicted, actual = (np.zeros((len(labels), len(names))) for _ in range(2))
    for row, pair in enumerate(labels):
        if pair is None:
            continue
        actual[row, index[pair[1]]] = 1
        if pair[0] in index:
            predicted[row, index[pair[0]]] = 1

    def estimate(weights: Floats) -> Floats:
        sum_actual, sum_predicted, correct = weights @ actual, weights @ predicted, weights @ (predicted * actual)
        f1 = np.divide(2 * correct, sum_predicted + sum_actual, out=np.zeros_like(correct), where=sum_actual > 0)
        return _divide(f1.sum(axis=1), (sum_actual > 0).sum(axis=1).astype(float))

    return estimate


def _build_ranking(labeled_logprobs: list[tuple[bool, float] | None]) -> Estimator:
    """Share of the pairs of a good and a bad completion in which the good one has the higher likelihood.

    A tie counts half. It is the area under the ROC curve of the likelihoods.
    """
    rows = [row for row, pair in enumerate(labeled_logprobs) if pair]
    logprobs = np.array([pair[1] for pair in labeled_logprobs if pair])
    is_good = np.array([pair[0] for pair in labeled_logprobs if pair], dtype=float)
    order = np.argsort(logprobs, kind="stable")
    _, starts = np.unique(logprobs[order], return_index=True)

    def estimate(weights: Floats) -> Floats:
        sorted_weights = weights[:, np.array(rows)[order]]
        good = np.add.reduceat(sorted_weights * is_good[order], starts, axis=1)
        bad = np.add.reduceat(sorted_weights * (1 - is_good[order]), starts, axis=1)
        below = np.cumsum(bad, axis=1) - bad / 2
        return _divide((good * below).sum(axis=1), good.sum(axis=1) * bad.sum(axis=1))

    return estimate


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotients, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
