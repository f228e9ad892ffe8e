"""Compares models on the same examples: gains with paired bootstrap intervals, and verdicts. No I/O."""

import math

import numpy as np
from finetune_api.evaluation import Metric
from finetune_api.summaries import IncumbentComparison, MetricComparison, Verdict

from finetune_serving.evaluation.estimators import Estimator, Floats, Sample, build_estimator

_RESAMPLES = 2000
_CHUNK = 50
"""Resamples that are computed together; for ten thousand examples they take 4 MB."""
_SEED = 0
_PERCENTILES = (2.5, 97.5)
_NORMAL_QUANTILE = 1.96
_T_QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447}
"""The 97.5 % quantiles of Student's t distribution by the number of examples, which is one more than its degrees of
freedom. From eight examples on the bootstrap is left as it is."""

MetricKey = tuple[Metric, str | None]
"""A metric, and for Grader the grader's name."""


def compare(
    metrics: list[MetricKey], base: list[Sample], tuned: list[Sample], incumbent: list[Sample] | None = None
) -> list[MetricComparison]:
    """Compare models on the same examples in the same order; a metric that applies to no example is left out.

    Raises:
        ValueError: the lists differ in length, or are empty.
    """
    if not base or len(base) != len(tuned) or (incumbent is not None and len(incumbent) != len(base)):
        raise ValueError("base, incumbent and tuned need the same examples, at least one")
    comparisons = (_compare(metric, grader, base, tuned, incumbent) for metric, grader in metrics)
    return [comparison for comparison in comparisons if comparison is not None]


def _compare(
    metric: Metric, grader: str | None, base: list[Sample], tuned: list[Sample], incumbent: list[Sample] | None
) -> MetricComparison | None:
    name = f"{metric} {grader}" if grader else metric
    estimators = [build_estimator(metric, name, samples) for samples in (base, tuned, incumbent) if samples is not None]
    equal_weights = np.ones((1, len(base)))
    values = [float(estimator(equal_weights)[0]) for estimator in estimators]
    if math.isnan(values[0]) or math.isnan(values[1]):
        return None
    tuned_value = np.array([values[1]])
    gains = [_compute_gain(metric, np.array([before]), tuned_value).item() for before in (values[0], *values[2:])]
    intervals = _compute_intervals(metric, estimators, len(base))
    return MetricComparison(
        metric=metric,
        grader=grader,
        base=round(values[0], 6),
        tuned=round(values[1], 6),
        gain=round(gains[0], 6),
        gain_low=intervals[0][0],
        gain_high=intervals[0][1],
        verdict=decide_verdict(*intervals[0]),
        incumbent=IncumbentComparison(
            value=round(values[2], 6),
            gain=round(gains[1], 6),
            gain_low=intervals[1][0],
            gain_high=intervals[1][1],
            verdict=decide_verdict(*intervals[1]),
        )
        if incumbent is not None
        else None,
    )


def decide_verdict(low: float, high: float) -> Verdict:
    """Return the verdict that follows from the interval of a gain."""
    if low > 0:
        return "Improved"
    return "Regressed" if high < 0 else "Inconclusive"


def compute_mcnemar_p(before: list[float], after: list[float]) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    It is the probability of a split between fixed and broken answers at least as uneven as this one, if neither model
    is better.
    """
    fixed = sum(old < new for old, new in zip(before, after, strict=True))
    broken = sum(old > new for old, new in zip(before, after, strict=True))
    changed = fixed + broken
    tail = sum(math.comb(changed, number) for number in range(min(fixed, broken) + 1))
    return float(min(1.0, 2 * tail / 2**changed))


def _compute_gain(metric: Metric, before: Floats, after: Floats) -> Floats:
    return 1 - after / before if metric == "Perplexity" else after - before


def _compute_intervals(metric: Metric, estimators: list[Estimator], count: int) -> list[tuple[float, float]]:
    """Return the 95 % bootstrap intervals of the second model's gain over each of the others.

    All models are computed on the same resampled examples, so that the differences are paired. A bootstrap of few
    examples is too narrow, so it is widened as Student's t distribution is against the normal distribution. A single
    example says nothing about others: its interval contains every gain from -1 to 1.
    """
    random = np.random.default_rng(_SEED)
    gains: list[list[Floats]] = [[] for _ in estimators[1:]]
    for _ in range(_RESAMPLES // _CHUNK):
        draws = random.integers(0, count, size=(_CHUNK, count))
        weights = np.stack([np.bincount(row, minlength=count) for row in draws]).astype(float)
        base, tuned, *others = [estimator(weights) for estimator in estimators]
        for chunks, before in zip(gains, (base, *others), strict=True):
            chunks.append(_compute_gain(metric, before, tuned))
    intervals = [np.nanpercentile(np.concatenate(chunks), _PERCENTILES) for chunks in gains]
    return [_widen(float(low), float(high), count) for low, high in intervals]


def _widen(low: float, high: float, count: int) -> tuple[float, float]:
    """Return the interval for a number of examples, from that of the bootstrap."""
    if count == 1:
        return min(-1.0, low), max(1.0, high)
    # The bootstrap also divides by the number of examples instead of the degrees of freedom.
    factor = _T_QUANTILES.get(count, _NORMAL_QUANTILE) / _NORMAL_QUANTILE
    factor *= math.sqrt(count / (count - 1)) if count in _T_QUANTILES else 1
    center, half = (low + high) / 2, (high - low) / 2 * factor
    return round(center - half, 6), round(center + half, 6)
