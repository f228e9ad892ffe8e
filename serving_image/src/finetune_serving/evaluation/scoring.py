"""Turns a model's output for a question into the sample that the estimators use. No I/O."""

from dataclasses import dataclass
from typing import Any

from finetune_api.evaluation import Metric
from finetune_api.graders import Grader
from finetune_pod.grading import grade, rouge
from finetune_pod.measurable import get_answer, get_shape
from finetune_pod.toolcalls import ToolFormat

from finetune_serving.evaluation.answer_scores import (
    bleu_statistics,
    exact_match,
    json_valid,
    normalize,
    token_f1,
    tool_call_valid,
)
from finetune_serving.evaluation.comparison import MetricKey
from finetune_serving.evaluation.engine import ModelOutput
from finetune_serving.evaluation.estimators import Sample
from finetune_serving.evaluation.questions import Question, build_grader_fields


@dataclass(frozen=True)
class Scoring:
    """The metrics to compute, and the inputs that some of them need."""

    metrics: tuple[Metric, ...]
    graders: tuple[Grader, ...] = ()
    schema: dict[str, Any] | None = None
    """JSON schema of a valid answer."""

    @property
    def metric_keys(self) -> list[MetricKey]:
        """The metrics to compare, with one entry per grader."""
        keys: list[MetricKey] = []
        for metric in self.metrics:
            keys += [(metric, grader.name) for grader in self.graders] if metric == "Grader" else [(metric, None)]
        return keys


def score_output(question: Question, output: ModelOutput, scoring: Scoring, tool_format: ToolFormat | None) -> Sample:
    """Return the sample of one output.

    Args:
        question: the question.
        output: a model's output for it.
        scoring: the metrics to compute.
        tool_format: how the model writes tool calls, if that is known.
    """
    shape, example, tokens = get_shape(question.example), question.example, output.tokens
    mean_logprob = -output.nll / tokens if tokens else 0.0
    scores: dict[str, float] = {}
    if output.rejected is not None:
        scores["PreferenceAccuracy"] = float(mean_logprob > output.rejected)
    if output.answer is not None and shape != "Labeled":
        scores |= _score_answer(question, output.answer, scoring)
        if "ToolCallValid" in scoring.metrics and tool_format and get_answer(example).get("tool_calls"):
            scores["ToolCallValid"] = tool_call_valid(output.raw_answer, example.get("tools") or [], tool_format)
    is_answered = output.answer is not None
    is_undesirable = shape == "Labeled" and not example["label"]
    return Sample(
        # The perplexity only counts texts that the model should write.
        nll=0.0 if is_undesirable else output.nll,
        tokens=0 if is_undesirable else tokens,
        answer=output.answer,
        scores=scores,
        labels=(normalize(output.answer or ""), normalize(question.reference))
        if "ClassificationF1" in scoring.metrics and is_answered
        else None,
        bleu=bleu_statistics(output.answer or "", question.reference)
        if "Bleu" in scoring.metrics and is_answered
        else None,
        labeled_logprob=(example["label"], mean_logprob) if shape == "Labeled" else None,
    )


def _score_answer(question: Question, answer: str, scoring: Scoring) -> dict[str, float]:
    """Return the scores of an answer by the metric's name, `Grader name` for a grader."""
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
        fields = build_grader_fields(question)
        scores |= {f"Grader {grader.name}": grade(grader, answer, fields) for grader in scoring.graders}
    return scores
