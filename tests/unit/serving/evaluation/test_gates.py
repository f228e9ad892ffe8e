"""Decisions and messages of gates."""

import pytest
from finetune_api.evaluation import Gate
from finetune_api.summaries import MetricComparison
from finetune_serving.evaluation.gates import decide_gate, summarize


def build_comparison(low: float, **incumbent: float) -> MetricComparison:
    incumbent_fields = {"value": 0.4, "gain": 0.1, "gainHigh": 0.2, "verdict": "Inconclusive"} | incumbent
    figures = {"base": 0.2, "tuned": 0.5, "gain": 0.3, "gainLow": low, "gainHigh": 0.4, "verdict": "Improved"}
    return MetricComparison.model_validate(
        {"metric": "ExactMatch"} | figures | ({"incumbent": incumbent_fields} if incumbent else {})
    )


@pytest.mark.parametrize(
    ("gate", "passed"),
    [({"min_gain": 0.4}, False), ({"min_gain": 0.25}, True), ({"min_gain": 0}, True), ({"max_regression": 0}, True)],
)
def test_the_lower_end_of_the_interval_decides(gate: dict[str, float], passed: bool) -> None:
    result = decide_gate(Gate(metric="ExactMatch", **gate), [build_comparison(0.25)])
    assert result.passed is passed
    assert "0.2 → 0.5, gain 0.3 [0.25, 0.4], improved, " in result.message


def test_a_gate_relative_to_the_incumbent_uses_the_gain_over_it() -> None:
    gate = Gate(metric="ExactMatch", relative_to="Incumbent", max_regression=0.05)
    result = decide_gate(gate, [build_comparison(0.25, gainLow=-0.1)])
    assert (result.passed, result.relative_to) == (False, "Incumbent")
    assert "0.4 → 0.5, gain over the incumbent 0.1 [-0.1, 0.2], inconclusive" in result.message
    without_incumbent = decide_gate(gate, [build_comparison(0.25)])
    assert (without_incumbent.passed, without_incumbent.relative_to) == (True, "Base")
    assert without_incumbent.message.endswith("passed; compared with the base model, because there is no incumbent")


def test_a_gate_whose_metric_was_not_measured_fails() -> None:
    result = decide_gate(Gate(metric="ToolCallValid", max_regression=1), [build_comparison(0.25)])
    assert not result.passed
    assert "it applies to no held-out example" in result.message


def test_metrics_with_a_gate_have_priority_if_there_are_too_many() -> None:
    comparison = build_comparison(0.25)
    metrics = [comparison.model_copy(update={"metric": "Grader", "grader": f"g{number}"}) for number in range(12)]
    summary = summarize(5, metrics, [Gate(metric="Grader", grader="g11", min_gain=0)])
    assert summary.passed
    assert [metric.grader for metric in summary.metrics] == [*(f"g{number}" for number in range(7)), "g11"]
