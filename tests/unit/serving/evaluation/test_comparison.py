"""Who is better: gains, intervals, verdicts."""

from typing import Any

import numpy as np
import pytest
from finetune_api.evaluation import Gate
from finetune_serving.evaluation.comparison import compare, judge, mcnemar
from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.gates import decide
from hypothesis import given
from hypothesis import strategies as st


def likely(nlls: list[float], match: float = 0.0) -> list[Sample]:
    return [Sample(nll, 10, "x", {"ExactMatch": match}) for nll in nlls]


def test_a_better_model_passes_and_luck_does_not() -> None:
    random = np.random.default_rng(1)
    base = list(random.uniform(20, 30, 40))
    gate = Gate(metric="Perplexity", min_gain=0)
    (better,) = compare([("Perplexity", None)], likely(base), likely([one - 5 for one in base]))
    assert better.gain == pytest.approx(1 - np.exp(-0.5), abs=1e-6)
    assert better.verdict == "Improved"
    assert decide(gate, [better]).passed
    noise = [one + change for one, change in zip(base, random.normal(0, 5, 40), strict=True)]
    (lucky,) = compare([("Perplexity", None)], likely(base), likely(noise))
    assert lucky.gain_low < 0 < lucky.gain_high
    assert lucky.verdict == "Inconclusive"
    assert not decide(gate, [lucky]).passed


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.2, "Improved"), (-0.2, -0.1, "Regressed"), (-0.1, 0.1, "Inconclusive"), (0.0, 0.0, "Inconclusive")],
)
def test_the_interval_gives_the_verdict(low: float, high: float, verdict: str) -> None:
    assert judge(low, high) == verdict


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_the_same_model_twice_gains_nothing(right: list[bool]) -> None:
    same = [Sample(1.0 + one, 3, "x", {"ExactMatch": float(one)}, ("a", "b"), (2, 2, *[1] * 8)) for one in right]
    wanted: list[Any] = [(one, None) for one in ("Perplexity", "ExactMatch", "ClassificationF1", "Bleu")]
    for one in compare(wanted, same, same, same):
        assert one.gain == one.gain_low == one.gain_high == 0
        assert one.verdict == "Inconclusive"
        assert one.incumbent is not None
        assert one.incumbent.gain_low == 0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_an_interval_holds_the_gain_and_turns_with_the_models(right: list[tuple[bool, bool]]) -> None:
    first, second = ([Sample(scores={"ExactMatch": float(one[index])}) for one in right] for index in (0, 1))
    (there,), (back,) = (compare([("ExactMatch", None)], *pair) for pair in ((first, second), (second, first)))
    assert there.gain_low <= there.gain <= there.gain_high
    assert (there.gain, there.gain_low) == (-back.gain, -back.gain_high)


def test_different_examples_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same examples"):
        compare([("Perplexity", None)], likely([1]), likely([1, 2]))


def test_mcnemar_is_exact() -> None:
    # 1 spoilt of 6 that changed: 2 · (1 + 6) / 64
    before, after = [1.0, 0, 0, 0, 0, 0, 1, 0], [0.0, 1, 1, 1, 1, 1, 1, 0]
    assert mcnemar(before, after) == pytest.approx(14 / 64)
    assert mcnemar(after, before) == pytest.approx(14 / 64)
    assert mcnemar([1.0], [1.0]) == 1
