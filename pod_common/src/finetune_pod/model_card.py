"""The last section of a model card: the scores, which are known only after the card was written. Pure."""

from finetune_api.summaries import EvaluationSummary

_HEADING = "\n## Scores\n"


def with_scores(card: str, evaluation: EvaluationSummary | None) -> str:
    """Return a card that ends with these scores, in place of earlier ones; None says that there are none yet."""
    text = card.rpartition(_HEADING)[0] or card
    if evaluation is None:
        return f"{text}{_HEADING}\nBase and tuned model were not compared yet.\n"
    rows = [
        f"| {one.label} | {one.base:.4f} | {one.tuned:.4f} | {one.gain:+.4f} |"
        f" {one.gain_low:+.4f} to {one.gain_high:+.4f} | {one.verdict} |"
        for one in evaluation.metrics
    ]
    gates = [f"- {'passed' if gate.passed else 'failed'}: {gate.message}" for gate in evaluation.gates]
    lines = [
        f"Base and tuned model on {evaluation.examples} held-out examples; 95 % intervals by paired bootstrap.\n",
        "| metric | base | tuned | gain | interval | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        *(["", *gates] if gates else []),
    ]
    return f"{text}{_HEADING}\n" + "\n".join(lines) + "\n"
