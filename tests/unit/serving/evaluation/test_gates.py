"""Which gates are passed, and what is said of them."""

import pytest
from finetune_api.evaluation import Gate
from finetune_api.summaries import MetricComparison
from finetune_serving.evaluation.gates import decide, summarise


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


def test_a_gate_whose_metric_was_not_measured_fails() -> None:
    result = decide(Gate(metric="ToolCallValid", max_loss=1), [measured(0.25)])
    assert not result.passed
    assert "no held-out example bears on it" in result.message


def test_metrics_with_a_gate_come_first_where_there_is_no_room_for_all() -> None:
    figures = measured(0.25)
    many = [figures.model_copy(update={"metric": "Grader", "grader": f"g{number}"}) for number in range(12)]
    summary = summarise(5, many, [Gate(metric="Grader", grader="g11", min_gain=0)])
    assert summary.passed
    assert [one.grader for one in summary.metrics] == [*(f"g{number}" for number in range(7)), "g11"]
