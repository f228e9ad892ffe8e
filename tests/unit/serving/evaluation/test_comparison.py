"""Gains, intervals and verdicts of a comparison."""

from typing import Any

import numpy as np
import pytest
from finetune_api.evaluation import Gate
from finetune_serving.evaluation.comparison import compare, compute_mcnemar_p, decide_verdict
from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.gates import decide_gate
from hypothesis import given
from hypothesis import strategies as st


def build_samples(nlls: list[float], match: float = 0.0) -> list[Sample]:
    return [Sample(nll, 10, "x", {"ExactMatch": match}) for nll in nlls]


def test_a_better_model_passes_and_noise_does_not() -> None:
    random = np.random.default_rng(1)
    base = list(random.uniform(20, 30, 40))
    gate = Gate(metric="Perplexity", min_gain=0)
    (better,) = compare([("Perplexity", None)], build_samples(base), build_samples([nll - 5 for nll in base]))
    assert better.gain == pytest.approx(1 - np.exp(-0.5), abs=1e-6)
    assert better.verdict == "Improved"
    assert decide_gate(gate, [better], 10).passed
    noise = [nll + change for nll, change in zip(base, random.normal(0, 5, 40), strict=True)]
    (lucky,) = compare([("Perplexity", None)], build_samples(base), build_samples(noise))
    assert lucky.gain_low < 0 < lucky.gain_high
    assert lucky.verdict == "Inconclusive"
    assert not decide_gate(gate, [lucky], 10).passed


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.2, "Improved"), (-0.2, -0.1, "Regressed"), (-0.1, 0.1, "Inconclusive"), (0.0, 0.0, "Inconclusive")],
)
def test_the_interval_gives_the_verdict(low: float, high: float, verdict: str) -> None:
    assert decide_verdict(low, high) == verdict


@given(st.lists(st.booleans(), min_size=2, max_size=30))
def test_the_same_model_twice_gains_nothing(matches: list[bool]) -> None:
    same = [
        Sample(1.0 + match, 3, "x", {"ExactMatch": float(match)}, ("a", "b"), (2, 2, *[1] * 8)) for match in matches
    ]
    metrics: list[Any] = [(metric, None) for metric in ("Perplexity", "ExactMatch", "ClassificationF1", "Bleu")]
    for comparison in compare(metrics, same, same, same):
        assert comparison.gain == comparison.gain_low == comparison.gain_high == 0
        assert comparison.verdict == "Inconclusive"
        assert comparison.incumbent is not None
        assert comparison.incumbent.gain_low == 0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_an_interval_contains_the_gain_and_is_mirrored_when_the_models_are_swapped(
    matches: list[tuple[bool, bool]],
) -> None:
    first, second = ([Sample(scores={"ExactMatch": float(pair[index])}) for pair in matches] for index in (0, 1))
    (forward,), (backward,) = (compare([("ExactMatch", None)], *pair) for pair in ((first, second), (second, first)))
    assert forward.gain_low <= forward.gain <= forward.gain_high
    assert (forward.gain, forward.gain_low) == (-backward.gain, -backward.gain_high)


def test_different_examples_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same examples"):
        compare([("Perplexity", None)], build_samples([1]), build_samples([1, 2]))


def test_mcnemar_is_exact() -> None:
    # 1 broken of 6 that changed: 2 · (1 + 6) / 64
    before, after = [1.0, 0, 0, 0, 0, 0, 1, 0], [0.0, 1, 1, 1, 1, 1, 1, 0]
    assert compute_mcnemar_p(before, after) == pytest.approx(14 / 64)
    assert compute_mcnemar_p(after, before) == pytest.approx(14 / 64)
    assert compute_mcnemar_p([1.0], [1.0]) == 1


def test_one_example_proves_nothing() -> None:
    (comparison,) = compare([("Perplexity", None)], [Sample(9.0, 3)], [Sample(3.0, 3)])
    assert (comparison.gain_low, comparison.gain_high, comparison.verdict) == (-1, 1, "Inconclusive")


def test_intervals_of_few_examples_are_wider_than_their_bootstrap() -> None:
    def measure(count: int) -> tuple[float, float]:
        before = [Sample(scores={"ExactMatch": float(number % 2)}) for number in range(count)]
        after = [Sample(scores={"ExactMatch": 1.0}) for _ in range(count)]
        (comparison,) = compare([("ExactMatch", None)], before, after)
        return comparison.gain_low, comparison.gain_high

    widths = [high - low for low, high in map(measure, (2, 4, 6))]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1
    assert measure(8)[0] >= 0  # From eight examples on it is the bootstrap's, which stays among the measured gains.


def test_an_interval_is_as_wide_as_its_own_examples_require() -> None:
    """A metric that applies to three of forty examples has the interval of three examples."""
    few = [Sample(scores={"ToolCallValid": float(number == 0)}) for number in range(3)]
    good = [Sample(scores={"ToolCallValid": 1.0}) for _ in range(3)]
    others = [Sample() for _ in range(37)]
    (comparison,) = compare([("ToolCallValid", None)], few + others, good + others)
    assert comparison.examples == 3
    assert comparison.gain_low < 0 < comparison.gain_high


def test_an_incumbent_is_compared_on_examples_that_are_new_to_it() -> None:
    """The incumbent knows the first ten answers by heart; on the others the tuned model is better."""
    tuned = [Sample(scores={"ExactMatch": float(number % 2)}) for number in range(30)]
    incumbent = [Sample(scores={"ExactMatch": float(number < 10)}) for number in range(30)]
    base = [Sample(scores={"ExactMatch": 0.0})] * 30
    is_known = [number < 10 for number in range(30)]
    (comparison,) = compare([("ExactMatch", None)], base, tuned, incumbent, is_known)
    assert comparison.examples == 30
    assert comparison.incumbent
    assert (comparison.incumbent.examples, comparison.incumbent.value, comparison.incumbent.tuned) == (20, 0, 0.5)
    assert comparison.incumbent.gain_low > 0
    (comparison,) = compare([("ExactMatch", None)], base, tuned, incumbent, [True] * 30)
    assert comparison.incumbent
    assert (comparison.incumbent.examples, comparison.incumbent.verdict) == (0, "Inconclusive")


def test_labeled_examples_count_as_their_rarer_label() -> None:
    """Eleven good completions and one bad one say as little as one pair."""
    samples = [Sample(labeled_logprob=(number > 0, -1.0 - number % 3)) for number in range(12)]
    (comparison,) = compare([("PreferenceAccuracy", None)], samples, samples)
    assert comparison.examples == 1
    assert (comparison.gain_low, comparison.gain_high) == (-1, 1)
