"""Decides the gates by the lower end of the gain's interval, and puts the summary together. Pure."""

from finetune_api.evaluation import Gate
from finetune_api.summaries import EvaluationSummary, GateResult, MetricComparison

_ROOM = 8
"""Metrics in the status at most."""


def summarise(examples: int, metrics: list[MetricComparison], gates: list[Gate]) -> EvaluationSummary:
    """Decide all gates; the metrics with a gate come first where there is no room for all."""
    results = [decide(gate, metrics) for gate in gates]
    gated = {(gate.metric, gate.grader) for gate in gates}
    first = sorted(metrics, key=lambda one: (one.metric, one.grader) not in gated)[:_ROOM]
    return EvaluationSummary(
        examples=examples,
        passed=all(result.passed for result in results),
        metrics=[one for one in metrics if one in first],
        gates=results,
    )


def decide(gate: Gate, metrics: list[MetricComparison]) -> GateResult:
    """Decide one gate; a least gain of 0 asks for a gain above 0, and what was not measured does not pass."""
    measured = next((one for one in metrics if (one.metric, one.grader) == (gate.metric, gate.grader)), None)
    result = GateResult(metric=gate.metric, grader=gate.grader, relative_to="Base", passed=False, message="")
    if measured is None:
        name = f"{gate.metric} {gate.grader}" if gate.grader else gate.metric
        return result.model_copy(update={"message": f"{name} was not measured: no held-out example bears on it"})
    against = measured.incumbent if gate.relative_to == "Incumbent" else None
    low, high = (against or measured).gain_low, (against or measured).gain_high
    if gate.min_gain is not None:
        passed = low > 0 if gate.min_gain == 0 else low >= gate.min_gain
        bar = f"a gain of {'more than 0' if gate.min_gain == 0 else f'{gate.min_gain:.3g} at least'}"
    else:
        passed = low >= -(gate.max_loss or 0.0)
        bar = f"a loss of {gate.max_loss or 0.0:.3g} at most"
    before = against.value if against else measured.base
    over = " over the incumbent" if against else ""
    alone = "; there is no incumbent, so the base model was taken" if gate.relative_to == "Incumbent" else ""
    message = (
        f"{measured.label} {before:.4g} → {measured.tuned:.4g}, gain{over} {(against or measured).gain:.3g}"
        f" [{low:.3g}, {high:.3g}], {(against or measured).verdict.lower()}, asked for {bar}:"
        f" {'passed' if passed else 'failed'}{'' if against else alone}"
    )
    relative_to = "Incumbent" if against else "Base"
    return result.model_copy(update={"relative_to": relative_to, "passed": passed, "message": message})
