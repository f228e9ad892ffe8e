"""Compares models on the same examples: gains with paired bootstrap intervals, and verdicts. No I/O."""

import math
from dataclasses import dataclass

import numpy as np
from finetune_api.evaluation import Metric
from finetune_api.summaries import IncumbentComparison, MetricComparison, Verdict

from finetune_serving.evaluation.estimators import Estimator, Floats, Sample, build_estimator, count_measured

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
    metrics: list[MetricKey],
    base: list[Sample],
    tuned: list[Sample],
    incumbent: list[Sample] | None = None,
    is_known: list[bool] | None = None,
) -> list[MetricComparison]:
    """Compare models on the same examples in the same order; a metric that applies to no example is left out.

    Args:
        metrics: the metrics.
        base: samples of the base model.
        tuned: samples of the tuned model.
        incumbent: samples of the incumbent, if there is one.
        is_known: for each example whether the incumbent was trained on it. It is then no measure of the incumbent.

    Raises:
        ValueError: the lists differ in length, or are empty.
    """
    if not base or len(base) != len(tuned) or (incumbent is not None and len(incumbent) != len(base)):
        raise ValueError("base, incumbent and tuned need the same examples, at least one")
    new = [index for index, known in enumerate(is_known or [False] * len(base)) if not known]
    comparisons = (_compare(metric, grader, base, tuned, incumbent, new) for metric, grader in metrics)
    return [comparison for comparison in comparisons if comparison is not None]


def _compare(
    metric: Metric,
    grader: str | None,
    base: list[Sample],
    tuned: list[Sample],
    incumbent: list[Sample] | None,
    new: list[int],
) -> MetricComparison | None:
    gain = _measure_gain(metric, grader, base, tuned)
    if gain is None:
        return None
    return MetricComparison(
        metric=metric,
        grader=grader,
        examples=gain.examples,
        base=gain.before,
        tuned=gain.after,
        gain=gain.gain,
        gain_low=gain.low,
        gain_high=gain.high,
        verdict=decide_verdict(gain.low, gain.high),
        incumbent=_compare_incumbent(metric, grader, incumbent, tuned, new) if incumbent else None,
    )


def _compare_incumbent(
    metric: Metric, grader: str | None, incumbent: list[Sample], tuned: list[Sample], new: list[int]
) -> IncumbentComparison | None:
    """Compare on the examples that are new to the incumbent; on all if none is, which then proves nothing."""
    gain = _measure_gain(metric, grader, [incumbent[index] for index in new], [tuned[index] for index in new])
    examples = gain.examples if gain else 0
    gain = gain or _measure_gain(metric, grader, incumbent, tuned)
    if gain is None:
        return None
    return IncumbentComparison(
        examples=examples,
        value=gain.before,
        tuned=gain.after,
        gain=gain.gain,
        gain_low=gain.low,
        gain_high=gain.high,
        verdict=decide_verdict(gain.low, gain.high) if examples else "Inconclusive",
    )


@dataclass(frozen=True)
class _Gain:
    """The gain of one model over another in one metric, rounded."""

    examples: int
    """Number of examples to which the metric applies."""
    before: float
    after: float
    gain: float
    low: float
    high: float


def _measure_gain(metric: Metric, grader: str | None, before: list[Sample], after: list[Sample]) -> _Gain | None:
    """Return the gain of `after` over `before`; None if the metric applies to no example."""
    if not before:
        return None
    name = f"{metric} {grader}" if grader else metric
    estimators = build_estimator(metric, name, before), build_estimator(metric, name, after)
    equal_weights = np.ones((1, len(before)))
    value_before, value_after = (estimator(equal_weights) for estimator in estimators)
    if math.isnan(value_before[0]) or math.isnan(value_after[0]):
        return None
    examples = count_measured(metric, name, after)
    low, high = _widen(*_compute_interval(metric, *estimators, len(before)), examples)
    gain = _compute_gain(metric, value_before, value_after)
    return _Gain(
        examples=examples,
        before=round(float(value_before[0]), 6),
        after=round(float(value_after[0]), 6),
        gain=round(float(gain[0]), 6),
        low=low,
        high=high,
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


def _compute_interval(metric: Metric, before: Estimator, after: Estimator, count: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the second model's gain over the first.

    Both models are computed on the same resampled examples, so that the differences are paired.
    """
    random = np.random.default_rng(_SEED)
    gains: list[Floats] = []
    for _ in range(_RESAMPLES // _CHUNK):
        draws = random.integers(0, count, size=(_CHUNK, count))
        weights = np.stack([np.bincount(row, minlength=count) for row in draws]).astype(float)
        gains.append(_compute_gain(metric, before(weights), after(weights)))
    low, high = np.nanpercentile(np.concatenate(gains), _PERCENTILES)
    return float(low), float(high)


def _widen(low: float, high: float, count: int) -> tuple[float, float]:
    """Return the interval for a number of examples, from that of the bootstrap.

    A bootstrap of few examples is too narrow, so it is widened as Student's t distribution is against the normal
    distribution. A single example says nothing about others: its interval contains every gain from -1 to 1.
    """
    if count == 1:
        return min(-1.0, low), max(1.0, high)
    # The bootstrap also divides by the number of examples instead of the degrees of freedom.
    factor = _T_QUANTILES.get(count, _NORMAL_QUANTILE) / _NORMAL_QUANTILE
    factor *= math.sqrt(count / (count - 1)) if count in _T_QUANTILES else 1
    center, half = (low + high) / 2, (high - low) / 2 * factor
    return round(center - half, 6), round(center + half, 6)
