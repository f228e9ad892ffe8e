"""Decides the gates by the lower end of the gain's interval, and builds the summary of an evaluation. No I/O."""

from finetune_api.evaluation import Gate
from finetune_api.summaries import EvaluationSummary, GateResult, MetricComparison

_MAX_METRICS = 8
"""Maximum number of metrics in the status."""


def summarize(examples: int, metrics: list[MetricComparison], gates: list[Gate]) -> EvaluationSummary:
    """Decide all gates and return the summary. If there are too many metrics, those with a gate have priority."""
    results = [decide_gate(gate, metrics) for gate in gates]
    gated = {(gate.metric, gate.grader) for gate in gates}
    kept = sorted(metrics, key=lambda metric: (metric.metric, metric.grader) not in gated)[:_MAX_METRICS]
    return EvaluationSummary(
        examples=examples,
        passed=all(result.passed for result in results),
        metrics=[metric for metric in metrics if metric in kept],
        gates=results,
    )


def decide_gate(gate: Gate, metrics: list[MetricComparison]) -> GateResult:
    """Decide one gate. A minGain of 0 requires a gain above 0; a metric that was not measured fails its gate."""
    comparison = next(
        (metric for metric in metrics if (metric.metric, metric.grader) == (gate.metric, gate.grader)), None
    )
    result = GateResult(metric=gate.metric, grader=gate.grader, relative_to="Base", passed=False, message="")
    if comparison is None:
        name = f"{gate.metric} {gate.grader}" if gate.grader else gate.metric
        return result.model_copy(update={"message": f"{name} was not measured: it applies to no held-out example"})
    incumbent = comparison.incumbent if gate.relative_to == "Incumbent" else None
    compared = incumbent or comparison
    low, high = compared.gain_low, compared.gain_high
    if gate.min_gain is not None:
        passed = low > 0 if gate.min_gain == 0 else low >= gate.min_gain
        requirement = "required gain > 0" if gate.min_gain == 0 else f"required gain ≥ {gate.min_gain:.3g}"
    else:
        passed = low >= -(gate.max_regression or 0.0)
        requirement = f"allowed regression ≤ {gate.max_regression or 0.0:.3g}"
    before = incumbent.value if incumbent else comparison.base
    over = " over the incumbent" if incumbent else ""
    fallback = "; compared with the base model, because there is no incumbent"
    message = (
        f"{comparison.label} {before:.4g} → {comparison.tuned:.4g}, gain{over} {compared.gain:.3g}"
        f" [{low:.3g}, {high:.3g}], {compared.verdict.lower()}, {requirement}:"
        f" {'passed' if passed else 'failed'}"
        f"{fallback if gate.relative_to == 'Incumbent' and not incumbent else ''}"
    )
    relative_to = "Incumbent" if incumbent else "Base"
    return result.model_copy(update={"relative_to": relative_to, "passed": passed, "message": message})
