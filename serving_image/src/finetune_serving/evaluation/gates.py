"""Decides the gates by the lower end of the gain's interval, and builds the summary of an evaluation. No I/O."""

import math

from finetune_api.evaluation import Gate
from finetune_api.summaries import EvaluationSummary, GateResult, IncumbentComparison, MetricComparison

_MAX_METRICS = 8
"""Maximum number of metrics in the status."""


def summarize(
    examples: int, metrics: list[MetricComparison], gates: list[Gate], min_examples: int
) -> EvaluationSummary:
    """Decide all gates and return the summary. If there are too many metrics, those with a gate have priority."""
    results = [decide_gate(gate, metrics, min_examples) for gate in gates]
    gated = {(gate.metric, gate.grader) for gate in gates}
    kept = sorted(metrics, key=lambda metric: (metric.metric, metric.grader) not in gated)[:_MAX_METRICS]
    return EvaluationSummary(
        examples=examples,
        passed=all(result.passed for result in results),
        metrics=[metric for metric in metrics if metric in kept],
        gates=results,
    )


def decide_gate(gate: Gate, metrics: list[MetricComparison], min_examples: int) -> GateResult:
    """Decide one gate. A minGain of 0 requires a gain above 0.

    Args:
        gate: the gate.
        metrics: the comparisons of all metrics.
        min_examples: the number of examples below which no gate is decided.
    """
    comparison = next(
        (metric for metric in metrics if (metric.metric, metric.grader) == (gate.metric, gate.grader)), None
    )
    result = GateResult(metric=gate.metric, grader=gate.grader, relative_to="Base", passed=False, message="")
    if comparison is None:
        name = f"{gate.metric} {gate.grader}" if gate.grader else gate.metric
        message = f"{name} was not measured: it applies to no held-out example: inconclusive"
        return result.model_copy(update={"conclusive": False, "message": message})
    incumbent = comparison.incumbent if gate.relative_to == "Incumbent" else None
    compared = incumbent or comparison
    before, after = (incumbent.value, incumbent.tuned) if incumbent else (comparison.base, comparison.tuned)
    doubt = _find_doubt(gate, compared, before=before, after=after, min_examples=min_examples)
    passed = _meets(gate, compared.gain_low) and not doubt
    over = " over the incumbent" if incumbent else ""
    fallback = "; compared with the base model, because there is no incumbent"
    message = (
        f"{comparison.label} {before:.4g} → {after:.4g} on {compared.examples} examples,"
        f" gain{over} {compared.gain:.3g} [{compared.gain_low:.3g}, {compared.gain_high:.3g}],"
        f" {compared.verdict.lower()}; the lower bound, {compared.gain_low:.3g}, must be {_describe(gate)}:"
        f" {'passed' if passed else f'inconclusive, {doubt}' if doubt else 'failed'}"
        f"{fallback if gate.relative_to == 'Incumbent' and not incumbent else ''}"
    )
    relative_to = "Incumbent" if incumbent else "Base"
    return result.model_copy(
        update={"relative_to": relative_to, "passed": passed, "conclusive": not doubt, "message": message}
    )


def _meets(gate: Gate, gain: float) -> bool:
    return gain > 0 if gate.min_gain == 0 else gain >= _required_gain(gate)


def _cannot_fail(gate: Gate, before: float) -> bool:
    """Return whether a score, which is never below 0, cannot fall by more than a gate accepts. With 1 that is meant."""
    return gate.metric != "Perplexity" and gate.max_regression is not None and before <= gate.max_regression < 1


def _required_gain(gate: Gate) -> float:
    return gate.min_gain if gate.min_gain is not None else -(gate.max_regression or 0.0)


def _describe(gate: Gate) -> str:
    return "above 0" if gate.min_gain == 0 else f"at least {_required_gain(gate):.3g}"


def _find_doubt(
    gate: Gate,
    compared: MetricComparison | IncumbentComparison,
    *,
    before: float,
    after: float | None,
    min_examples: int,
) -> str:
    """Return why the held-out examples do not decide a gate, and what would; empty if they do.

    Args:
        gate: the gate.
        compared: the comparison that it refers to.
        before: the value of the model that the tuned one is compared with.
        after: the value of the tuned model.
        min_examples: the number of examples below which no gate is decided.
    """
    examples = compared.examples or 0
    if examples < max(min_examples, 1):
        kind = "that are new to the incumbent" if isinstance(compared, IncumbentComparison) else "to which it applies"
        return f"they prove nothing: hold out at least {min_examples} {kind} (evaluation.minExamples)"
    if _meets(gate, compared.gain_low) and before == after == 0:
        return "no answer of either model scores above 0, which proves nothing: use another metric"
    if _cannot_fail(gate, before) and compared.gain_low <= 0:
        return (
            f"a score of {before:.4g} cannot fall by more than {gate.max_regression:.3g}, so only an improvement proves"
            " something: hold out more examples, or use another metric"
        )
    if _meets(gate, compared.gain_low) or not _meets(gate, compared.gain_high):
        return ""
    margin = compared.gain - _required_gain(gate)
    if margin <= 0:
        return "the interval contains both outcomes: hold out more examples"
    # The width of an interval falls with the square root of the number of examples.
    needed = examples * ((compared.gain - compared.gain_low) / margin) ** 2
    return f"about {_round_up(needed)} examples like these would decide it: hold out more"


def _round_up(number: float) -> int:
    """Return the number rounded up to one significant digit, since it is a rough estimate."""
    unit: int = 10 ** max(0, math.floor(math.log10(number)))
    return math.ceil(number / unit) * unit
