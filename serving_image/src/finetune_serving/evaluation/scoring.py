"""From what a model makes of a question to the sample that the comparison counts with. Pure."""

from dataclasses import dataclass
from typing import Any

from finetune_api.evaluation import Metric
from finetune_api.graders import Grader
from finetune_pod.grading import grade, rouge
from finetune_pod.measurable import answer_of, shape_of
from finetune_pod.toolcalls import ToolFormat

from finetune_serving.evaluation.comparison import Wanted
from finetune_serving.evaluation.engine import Measured
from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.questions import Question, graders_compare_with
from finetune_serving.evaluation.scores import (
    bleu_statistics,
    exact_match,
    json_valid,
    normalise,
    token_f1,
    tool_call_valid,
)


@dataclass(frozen=True)
class Scoring:
    """What is measured, and with what."""

    metrics: tuple[Metric, ...]
    graders: tuple[Grader, ...] = ()
    schema: dict[str, Any] | None = None
    """JSON schema that a valid answer follows."""

    @property
    def wanted(self) -> list[Wanted]:
        """The metrics to compare, every grader one of its own."""
        found: list[Wanted] = []
        for metric in self.metrics:
            found += [(metric, one.name) for one in self.graders] if metric == "Grader" else [(metric, None)]
        return found


def score(question: Question, measured: Measured, scoring: Scoring, written: ToolFormat | None) -> Sample:
    """Score one answer.

    Args:
        question: what was asked.
        measured: what a model made of it.
        scoring: what is measured.
        written: how the model writes calls of tools, where that is known.
    """
    shape, example, tokens = shape_of(question.example), question.example, measured.tokens
    mean = -measured.nll / tokens if tokens else 0.0
    scores: dict[str, float] = {}
    if measured.rejected is not None:
        scores["PreferenceAccuracy"] = float(mean > measured.rejected)
    if measured.answer is not None and shape != "Labeled":
        scores |= _score_answer(question, measured.answer, scoring)
        if "ToolCallValid" in scoring.metrics and written and answer_of(example).get("tool_calls"):
            scores["ToolCallValid"] = tool_call_valid(measured.raw, example.get("tools") or [], written)
    is_answered = measured.answer is not None
    is_unwanted = shape == "Labeled" and not example["label"]
    return Sample(
        # What should not be written is no measure of how well a model writes.
        nll=0.0 if is_unwanted else measured.nll,
        tokens=0 if is_unwanted else tokens,
        answer=measured.answer,
        scores=scores,
        labels=(normalise(measured.answer or ""), normalise(question.reference))
        if "ClassificationF1" in scoring.metrics and is_answered
        else None,
        bleu=bleu_statistics(measured.answer or "", question.reference)
        if "Bleu" in scoring.metrics and is_answered
        else None,
        judged=(example["label"], mean) if shape == "Labeled" else None,
    )


def _score_answer(question: Question, answer: str, scoring: Scoring) -> dict[str, float]:
    reference = question.reference
    scores: dict[str, float] = {}
    if "ExactMatch" in scoring.metrics:
        scores["ExactMatch"] = exact_match(answer, reference)
    if "TokenF1" in scoring.metrics:
        scores["TokenF1"] = token_f1(answer, reference)
    if {"Rouge1", "Rouge2", "RougeL"} & set(scoring.metrics):
        scores |= {name: value for name, value in rouge(answer, reference).items() if name in scoring.metrics}
    if "JsonValid" in scoring.metrics:
        scores["JsonValid"] = json_valid(answer, scoring.schema)
    if "Grader" in scoring.metrics:
        fields = graders_compare_with(question)
        scores |= {f"Grader {one.name}": grade(one, answer, fields) for one in scoring.graders}
    return scores
