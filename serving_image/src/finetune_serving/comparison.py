"""Compares base and tuned model on the same examples: metrics, paired intervals, gates. Pure."""

from dataclasses import dataclass

import numpy as np
from finetune_api.evaluation import Gate, Metric
from finetune_api.reports import EvaluationSummary, GateResult, MetricComparison
from numpy.typing import NDArray

_RESAMPLES = 2000
_SEED = 0
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Sample:
    """One held-out example, answered by one model."""

    nll: float
    """Negative log-likelihood of the target tokens, nats, summed."""
    tokens: int
    """How many target tokens there are."""
    exact_match: float | None
    rouge_l: float | None
    answer: str | None
    """None where there is nothing to answer, as in plain text; the scores are None then too."""


def compare(base: list[Sample], tuned: list[Sample], gates: list[Gate]) -> EvaluationSummary:
    """Compare two models on the same examples, in the same order, and decide the gates.

    Raises:
        ValueError: the lists differ in length, or are empty.
    """
    if not base or len(base) != len(tuned):
        raise ValueError("base and tuned need the same examples, at least one")
    metrics = [_compare_perplexity(base, tuned)]
    scores: tuple[tuple[Metric, str], ...] = (("ExactMatch", "exact_match"), ("RougeL", "rouge_l"))
    for metric, field in scores:
        before, after = ([getattr(one, field) for one in samples] for samples in (base, tuned))
        if None not in before:
            metrics.append(_compare_means(metric, before, after))
    by_name = {metric.metric: metric for metric in metrics}
    results = [decide(gate, by_name[gate.metric]) for gate in gates]
    return EvaluationSummary(
        examples=len(base), passed=all(result.passed for result in results), metrics=metrics, gates=results
    )


def decide(gate: Gate, measured: MetricComparison) -> GateResult:
    """Decide one gate by the lower end of the gain's interval; a least gain of 0 asks for a gain above 0."""
    low = measured.gain_low
    if gate.min_gain is not None:
        passed = low > 0 if gate.min_gain == 0 else low >= gate.min_gain
        bar = f"a gain of {'more than 0' if gate.min_gain == 0 else f'{gate.min_gain:.3g} at least'}"
    else:
        allowed = gate.max_loss or 0.0
        passed = low >= -allowed
        bar = f"a loss of {allowed:.3g} at most"
    message = (
        f"{gate.metric} {measured.base:.4g} → {measured.tuned:.4g}, gain {measured.gain:.3g}"
        f" [{low:.3g}, {measured.gain_high:.3g}], asked for {bar}: {'passed' if passed else 'failed'}"
    )
    return GateResult(metric=gate.metric, passed=passed, message=message)


def perplexity(samples: list[Sample]) -> float:
    """Return exp(sum of negative log-likelihoods / number of target tokens)."""
    return float(np.exp(sum(one.nll for one in samples) / sum(one.tokens for one in samples)))


def _compare_perplexity(base: list[Sample], tuned: list[Sample]) -> MetricComparison:
    draws = _draws(len(base))
    tokens = np.array([one.tokens for one in base], dtype=float)[draws].sum(axis=1)
    of_base = np.array([one.nll for one in base])[draws].sum(axis=1) / tokens
    of_tuned = np.array([one.nll for one in tuned])[draws].sum(axis=1) / tokens
    low, high = np.percentile(1 - np.exp(of_tuned - of_base), _INTERVAL)
    before, after = perplexity(base), perplexity(tuned)
    return _comparison("Perplexity", before, after, 1 - after / before, (float(low), float(high)))


def _compare_means(name: Metric, base: list[float], tuned: list[float]) -> MetricComparison:
    differences = (np.array(tuned) - np.array(base))[_draws(len(base))].mean(axis=1)
    low, high = np.percentile(differences, _INTERVAL)
    before, after = float(np.mean(base)), float(np.mean(tuned))
    return _comparison(name, before, after, after - before, (float(low), float(high)))


def _comparison(
    name: Metric, base: float, tuned: float, gain: float, interval: tuple[float, float]
) -> MetricComparison:
    return MetricComparison(
        metric=name,
        base=round(base, 6),
        tuned=round(tuned, 6),
        gain=round(gain, 6),
        gain_low=round(interval[0], 6),
        gain_high=round(interval[1], 6),
    )


def _draws(count: int) -> NDArray[np.int64]:
    """Return the examples drawn for each resample: the same for both models, so that differences are paired."""
    return np.random.default_rng(_SEED).integers(0, count, size=(_RESAMPLES, count))
