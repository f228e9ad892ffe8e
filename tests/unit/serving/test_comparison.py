"""Who is better: metrics with known values, intervals, verdicts, gates."""

import math
from typing import Any

import numpy as np
import pytest
from finetune_api.evaluation import Gate
from finetune_api.reports import MetricComparison
from finetune_serving.comparison import compare, judge, mcnemar
from finetune_serving.estimators import Sample, build_estimator
from finetune_serving.gates import decide, summarise
from finetune_serving.scores import bleu_statistics
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import corpus_bleu

PAIRS = [("the cat sat on the mat", "the cat sat on a mat"), ("hello", "hello there"), ("a b c d e", "a b c d e")]


def likely(nlls: list[float], match: float = 0.0) -> list[Sample]:
    return [Sample(nll, 10, "x", {"ExactMatch": match}) for nll in nlls]


def value(metric: Any, samples: list[Sample]) -> float:
    return float(build_estimator(metric, metric, samples)(np.ones((1, len(samples))))[0])


def test_perplexity_is_weighted_by_tokens() -> None:
    assert value("Perplexity", [Sample(10.0, 10), Sample(90.0, 30)]) == pytest.approx(np.exp(100 / 40))


def test_bleu_is_that_of_sacrebleu_over_the_corpus() -> None:
    samples = [Sample(answer=given, bleu=bleu_statistics(given, wanted)) for given, wanted in PAIRS]
    wanted = corpus_bleu([given for given, _ in PAIRS], [[wanted for _, wanted in PAIRS]]).score / 100
    assert value("Bleu", samples) == pytest.approx(wanted)
    assert value("Bleu", samples[2:]) == pytest.approx(1)


def test_classification_f1_is_the_mean_over_the_references_labels() -> None:
    given = ["yes", "yes", "no", "perhaps"]
    wanted = ["yes", "no", "no", "no"]
    samples = [Sample(labels=pair) for pair in zip(given, wanted, strict=True)]
    # yes: 2·1 / (2 + 1); no: 2·1 / (1 + 3); perhaps is no label of the references
    assert value("ClassificationF1", samples) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_judged_completions_are_ranked_and_ties_count_half() -> None:
    samples = [Sample(judged=one) for one in ((True, -1.0), (True, -2.0), (False, -2.0), (False, -3.0))]
    assert value("PreferenceAccuracy", samples) == pytest.approx((1 + 1 + 0.5 + 1) / 4)


@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=12))
def test_the_ranking_is_that_of_all_pairs(judged: list[tuple[bool, int]]) -> None:
    good, bad = ([float(one) for is_good, one in judged if is_good is wanted] for wanted in (True, False))
    found = value("PreferenceAccuracy", [Sample(judged=(is_good, float(one))) for is_good, one in judged])
    if not good or not bad:
        assert math.isnan(found)
    else:
        pairs = [(one > other) + (one == other) / 2 for one in good for other in bad]
        assert found == pytest.approx(sum(pairs) / len(pairs))


def test_scores_count_only_the_examples_that_have_them() -> None:
    samples = [Sample(scores={"ToolCallValid": 1.0}), Sample(), Sample(scores={"ToolCallValid": 0.0})]
    assert value("ToolCallValid", samples) == 0.5
    assert compare([("ToolCallValid", None)], [Sample()] * 3, [Sample()] * 3) == []


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


def measured(low: float, **incumbent: float) -> MetricComparison:
    against = {"value": 0.4, "gain": 0.1, "gainHigh": 0.2, "verdict": "Inconclusive"} | incumbent
    figures = {"base": 0.2, "tuned": 0.5, "gain": 0.3, "gainLow": low, "gainHigh": 0.4, "verdict": "Improved"}
    return MetricComparison.model_validate(
        {"metric": "ExactMatch"} | figures | ({"incumbent": against} if incumbent else {})
    )


@pytest.mark.parametrize(
    ("gate", "passed"),
    [({"min_gain": 0.4}, False), ({"min_gain": 0.25}, True), ({"min_gain": 0}, True), ({"max_loss": 0}, True)],
)
def test_the_lower_end_of_the_interval_decides(gate: dict[str, float], passed: bool) -> None:
    result = decide(Gate(metric="ExactMatch", **gate), [measured(0.25)])
    assert result.passed is passed
    assert "0.2 → 0.5, gain 0.3 [0.25, 0.4], improved, asked for" in result.message


def test_a_gate_relative_to_the_incumbent_asks_for_its_interval() -> None:
    gate = Gate(metric="ExactMatch", relative_to="Incumbent", max_loss=0.05)
    result = decide(gate, [measured(0.25, gainLow=-0.1)])
    assert (result.passed, result.relative_to) == (False, "Incumbent")
    assert "0.4 → 0.5, gain over the incumbent 0.1 [-0.1, 0.2], inconclusive" in result.message
    alone = decide(gate, [measured(0.25)])
    assert (alone.passed, alone.relative_to) == (True, "Base")
    assert alone.message.endswith("passed; there is no incumbent, so the base model was taken")


def test_what_was_not_measured_does_not_pass() -> None:
    result = decide(Gate(metric="ToolCallValid", max_loss=1), [measured(0.25)])
    assert not result.passed
    assert "no held-out example bears on it" in result.message


def test_metrics_with_a_gate_come_first_where_there_is_no_room_for_all() -> None:
    figures = measured(0.25)
    many = [figures.model_copy(update={"metric": "Grader", "grader": f"g{number}"}) for number in range(12)]
    summary = summarise(5, many, [Gate(metric="Grader", grader="g11", min_gain=0)])
    assert summary.passed
    assert [one.grader for one in summary.metrics] == [*(f"g{number}" for number in range(7)), "g11"]
