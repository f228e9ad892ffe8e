"""Compares two models on the same examples: paired bootstrap intervals, verdicts. Pure."""

import math

import numpy as np
from finetune_api.evaluation import Metric
from finetune_api.summaries import IncumbentComparison, MetricComparison, Verdict

from finetune_serving.evaluation.estimators import Estimator, Floats, Sample, build_estimator

_RESAMPLES = 2000
_CHUNK = 50
"""Resamples at a time: of ten thousand examples they take 4 MB."""
_SEED = 0
_INTERVAL = (2.5, 97.5)

Wanted = tuple[Metric, str | None]
"""A metric, and for Grader the grader's name."""


def compare(
    wanted: list[Wanted], base: list[Sample], tuned: list[Sample], incumbent: list[Sample] | None = None
) -> list[MetricComparison]:
    """Compare models on the same examples, in the same order; a metric that no example bears on is left out.

    Raises:
        ValueError: the lists differ in length, or are empty.
    """
    if not base or len(base) != len(tuned) or (incumbent is not None and len(incumbent) != len(base)):
        raise ValueError("base, incumbent and tuned need the same examples, at least one")
    compared = (_compare(metric, grader, base, tuned, incumbent) for metric, grader in wanted)
    return [one for one in compared if one is not None]


def _compare(
    metric: Metric, grader: str | None, base: list[Sample], tuned: list[Sample], incumbent: list[Sample] | None
) -> MetricComparison | None:
    name = f"{metric} {grader}" if grader else metric
    models = [build_estimator(metric, name, samples) for samples in (base, tuned, incumbent) if samples is not None]
    once = np.ones((1, len(base)))
    values = [float(model(once)[0]) for model in models]
    if math.isnan(values[0]) or math.isnan(values[1]):
        return None
    gains = [_gain(metric, np.array([before]), np.array([values[1]])).item() for before in (values[0], *values[2:])]
    intervals = _resample(metric, models, len(base))
    return MetricComparison(
        metric=metric,
        grader=grader,
        base=round(values[0], 6),
        tuned=round(values[1], 6),
        gain=round(gains[0], 6),
        gain_low=intervals[0][0],
        gain_high=intervals[0][1],
        verdict=judge(*intervals[0]),
        incumbent=IncumbentComparison(
            value=round(values[2], 6),
            gain=round(gains[1], 6),
            gain_low=intervals[1][0],
            gain_high=intervals[1][1],
            verdict=judge(*intervals[1]),
        )
        if incumbent is not None
        else None,
    )


def judge(low: float, high: float) -> Verdict:
    """Return what the interval of a gain says."""
    if low > 0:
        return "Improved"
    return "Regressed" if high < 0 else "Inconclusive"


def mcnemar(before: list[float], after: list[float]) -> float:
    """Return the two-sided p of McNemar's exact test.

    It is how likely answers as unevenly mended and spoilt as these are where neither model is better.
    """
    mended = sum(one < other for one, other in zip(before, after, strict=True))
    spoilt = sum(one > other for one, other in zip(before, after, strict=True))
    count = mended + spoilt
    tail = sum(math.comb(count, number) for number in range(min(mended, spoilt) + 1))
    return float(min(1.0, 2 * tail / 2**count))


def _gain(metric: Metric, before: Floats, after: Floats) -> Floats:
    return 1 - after / before if metric == "Perplexity" else after - before


def _resample(metric: Metric, models: list[Estimator], count: int) -> list[tuple[float, float]]:
    """Return the intervals of the second model's gain over each of the others.

    The same examples are drawn for all models, so that the differences are paired.
    """
    random = np.random.default_rng(_SEED)
    gains: list[list[Floats]] = [[] for _ in models[1:]]
    for _ in range(_RESAMPLES // _CHUNK):
        draws = random.integers(0, count, size=(_CHUNK, count))
        weights = np.stack([np.bincount(row, minlength=count) for row in draws]).astype(float)
        base, tuned, *others = [model(weights) for model in models]
        for kept, before in zip(gains, (base, *others), strict=True):
            kept.append(_gain(metric, before, tuned))
    found = [np.nanpercentile(np.concatenate(one), _INTERVAL) for one in gains]
    return [(round(float(low), 6), round(float(high), 6)) for low, high in found]
