"""The last section of a model card: the scores, which the evaluation adds to the card. No I/O."""

from finetune_api.summaries import EvaluationSummary, GateResult

_HEADING = "\n## Scores\n"


def _describe_outcome(gate: GateResult) -> str:
    if gate.passed:
        return "passed"
    return "failed" if gate.conclusive else "inconclusive"


def with_scores(card: str, evaluation: EvaluationSummary | None) -> str:
    """Return the card with these scores in place of earlier ones; None if there was no evaluation yet."""
    text = card.rpartition(_HEADING)[0] or card
    if evaluation is None:
        return f"{text}{_HEADING}\nBase and tuned model have not been compared yet.\n"
    rows = [
        f"| {metric.label} | {metric.base:.4f} | {metric.tuned:.4f} | {metric.gain:+.4f} |"
        f" {metric.gain_low:+.4f} to {metric.gain_high:+.4f} | {metric.verdict} |"
        for metric in evaluation.metrics
    ]
    gates = [f"- {_describe_outcome(gate)}: {gate.message}" for gate in evaluation.gates]
    lines = [
        f"Base and tuned model on {evaluation.examples} held-out examples; 95 % intervals by paired bootstrap.\n",
        "| metric | base | tuned | gain | interval | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        *(["", *gates] if gates else []),
    ]
    return f"{text}{_HEADING}\n" + "\n".join(lines) + "\n"
