"""Decisions and messages of gates."""

from typing import Any

import pytest
from finetune_api.conditions import Reason
from finetune_api.evaluation import Gate
from finetune_api.summaries import MetricComparison
from finetune_serving.evaluation.gates import decide_gate, summarize


def build_comparison(low: float, examples: int = 30, **incumbent: float) -> MetricComparison:
    fields = {"examples": 20, "value": 0.4, "tuned": 0.6, "gain": 0.2, "gainHigh": 0.3, "verdict": "Inconclusive"}
    figures = {"base": 0.2, "tuned": 0.5, "gain": 0.3, "gainLow": low, "gainHigh": 0.4, "verdict": "Improved"}
    return MetricComparison.model_validate(
        {"metric": "ExactMatch", "examples": examples}
        | figures
        | ({"incumbent": fields | incumbent} if incumbent else {})
    )


def decide(comparison: MetricComparison, min_examples: int = 10, **requirement: Any) -> tuple[bool, bool, str]:
    result = decide_gate(Gate(metric="ExactMatch", **requirement), [comparison], min_examples)
    return result.passed, result.conclusive, result.message


@pytest.mark.parametrize(
    ("requirement", "passed", "conclusive"),
    [
        ({"min_gain": 0.5}, False, True),
        ({"min_gain": 0.4}, False, False),
        ({"min_gain": 0.25}, True, True),
        ({"min_gain": 0}, True, True),
        ({"max_regression": 0}, True, True),
    ],
)
def test_the_lower_bound_decides(requirement: dict[str, Any], passed: bool, conclusive: bool) -> None:
    result = decide(build_comparison(0.25), **requirement)
    assert result[:2] == (passed, conclusive)
    assert "0.2 → 0.5 on 30 examples, gain 0.3 [0.25, 0.4], improved; the lower bound, 0.25, must be" in result[2]


def test_a_gain_of_nothing_misses_a_gain_above_0() -> None:
    same = build_comparison(0.0).model_copy(update={"gain": 0.0, "gain_high": 0.0})
    assert decide(same, min_gain=0)[:2] == (False, True)
    assert decide(same, max_regression=0)[:2] == (True, True)


def test_fewer_examples_than_required_prove_nothing() -> None:
    passed, conclusive, message = decide(build_comparison(0.25, examples=9), min_gain=0)
    assert (passed, conclusive) == (False, False)
    assert message.endswith(
        "above 0: inconclusive, they prove nothing: hold out at least 10 to which it applies (evaluation.minExamples)"
    )
    assert decide(build_comparison(0.25, examples=9), min_examples=9, min_gain=0)[0]


def test_the_message_says_how_many_examples_would_decide() -> None:
    # The half width is 0.2 and the margin 0.1, so that four times as many examples are needed.
    passed, conclusive, message = decide(build_comparison(0.1), min_gain=0.2)
    assert (passed, conclusive) == (False, False)
    assert message.endswith(
        "must be at least 0.2: inconclusive, about 200 examples like these would decide it: hold out more"
    )
    _, _, message = decide(build_comparison(0.1), min_gain=0.3)
    assert message.endswith("the interval contains both outcomes: hold out more examples")


def test_two_models_without_any_good_answer_prove_nothing() -> None:
    nothing = build_comparison(0.0).model_copy(update={"base": 0.0, "tuned": 0.0, "gain": 0.0, "gain_high": 0.0})
    passed, conclusive, message = decide(nothing, max_regression=0.05)
    assert (passed, conclusive) == (False, False)
    assert "no answer of either model scores above 0" in message
    assert decide(nothing, min_gain=0.1)[:2] == (False, True)


@pytest.mark.parametrize(
    ("base", "low", "max_regression", "passed"),
    [(0.04, -0.03, 0.1, False), (0.04, 0.01, 0.1, True), (0.3, -0.03, 0.1, True), (0.04, -0.03, 1, True)],
)
def test_a_score_that_cannot_fall_far_enough_must_rise(
    base: float, low: float, max_regression: float, passed: bool
) -> None:
    comparison = build_comparison(low).model_copy(update={"base": base, "tuned": base, "gain": 0.0, "gain_high": 0.05})
    result = decide(comparison, max_regression=max_regression)
    assert result[:2] == (passed, passed)
    assert ("a score of 0.04 cannot fall by more than 0.1" in result[2]) == (not passed)


def test_a_gate_relative_to_the_incumbent_uses_the_gain_over_it() -> None:
    gate = Gate(metric="ExactMatch", relative_to="Incumbent", max_regression=0.05)
    result = decide_gate(gate, [build_comparison(0.25, gainLow=-0.1)], 10)
    assert (result.passed, result.relative_to) == (False, "Incumbent")
    assert "0.4 → 0.6 on 20 examples, gain over the incumbent 0.2 [-0.1, 0.3], inconclusive" in result.message
    without_incumbent = decide_gate(gate, [build_comparison(0.25)], 10)
    assert (without_incumbent.passed, without_incumbent.relative_to) == (True, "Base")
    assert without_incumbent.message.endswith("passed; compared with the base model, because there is no incumbent")


def test_examples_of_the_incumbents_training_prove_nothing() -> None:
    gate = Gate(metric="ExactMatch", relative_to="Incumbent", max_regression=0.05)
    known = build_comparison(0.25, gainLow=0.1)
    assert known.incumbent
    known = known.model_copy(update={"incumbent": known.incumbent.model_copy(update={"examples": 0})})
    result = decide_gate(gate, [known], 1)
    assert (result.passed, result.conclusive) == (False, False)
    assert "hold out at least 1 that are new to the incumbent" in result.message


def test_a_gate_whose_metric_was_not_measured_is_inconclusive() -> None:
    result = decide_gate(Gate(metric="ToolCallValid", max_regression=1), [build_comparison(0.25)], 10)
    assert (result.passed, result.conclusive) == (False, False)
    assert "it applies to no held-out example" in result.message


@pytest.mark.parametrize(
    ("gates", "reason"),
    [
        ([{"min_gain": 0}], Reason.GATES_PASSED),
        ([{"min_gain": 0.35}], Reason.INCONCLUSIVE),
        ([{"min_gain": 0}, {"min_gain": 0.35}], Reason.INCONCLUSIVE),
        ([{"min_gain": 0.35}, {"min_gain": 0.6}], Reason.GATES_FAILED),
        ([], Reason.GATES_PASSED),
    ],
)
def test_one_missed_gate_fails_the_result(gates: list[dict[str, float]], reason: Reason) -> None:
    summary = summarize(30, [build_comparison(0.25)], [Gate(metric="ExactMatch", **gate) for gate in gates], 10)
    assert summary.reason is reason


def test_metrics_with_a_gate_have_priority_if_there_are_too_many() -> None:
    comparison = build_comparison(0.25)
    metrics = [comparison.model_copy(update={"metric": "Grader", "grader": f"g{number}"}) for number in range(12)]
    summary = summarize(30, metrics, [Gate(metric="Grader", grader="g11", min_gain=0)], 10)
    assert summary.passed
    assert [metric.grader for metric in summary.metrics] == [*(f"g{number}" for number in range(7)), "g11"]
