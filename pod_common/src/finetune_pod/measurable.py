"""Which metrics can be measured on which data. Pure.

`prepare` refuses a gate by it before a GPU is asked for; the evaluation measures by it.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from finetune_api.evaluation import Evaluation, Gate, Metric
from finetune_api.graders import Grader

from finetune_pod.grading import ANSWER_FIELD, MissingReferenceError, check_reference

Example = dict[str, Any]
Shape = Literal["Conversation", "Text", "Pair", "Judged", "Prompt"]
"""What a prepared example is: messages, plain text, chosen and rejected, a completion with a label, a prompt."""

MOST_LABELS = 256
"""Different answers for which ClassificationF1 is computed at most."""
_LABELS = 50
"""Different answers that are taken for labels at most."""
_COMPARED: frozenset[Metric] = frozenset(
    {"ExactMatch", "TokenF1", "RougeL", "ClassificationF1", "Bleu", "Rouge1", "Rouge2"}
)
"""Metrics that compare an answer with a reference."""
_ANSWERED = _COMPARED | {"Grader", "JsonValid"}


@dataclass(frozen=True)
class Traits:
    """What bears on the metrics, of all held-out examples together."""

    shape: Shape
    examples: int
    labels: int
    """How many different references there are; MOST_LABELS + 1 for more."""
    has_references: bool
    """Whether every example has a text to compare an answer with."""
    is_json: bool
    """Whether every reference is a JSON object or list."""
    calls_tools: bool
    """Whether a reference calls a tool."""
    verdicts: frozenset[bool]
    """The labels of judged completions."""
    is_scored: bool = False
    """Whether the tuned model scores answers and writes none, as a reward model does."""


def shape_of(example: Example) -> Shape:
    """Return what a prepared example is."""
    if "messages" in example:
        return "Conversation"
    if "text" in example:
        return "Text"
    if "chosen" in example:
        return "Pair"
    return "Judged" if "completion" in example else "Prompt"


def answer_of(example: Example) -> dict[str, Any]:
    """Return the message that an answer is compared with; empty where there is none."""
    match shape_of(example):
        case "Conversation":
            return dict(next(one for one in reversed(example["messages"]) if one["role"] == "assistant"))
        case "Pair":
            return dict(example["chosen"][-1])
        case "Judged":
            return dict(example["completion"][-1]) if example["label"] else {}
        case "Prompt" if isinstance(example["reference"].get(ANSWER_FIELD), str | int | float):
            return {"content": str(example["reference"][ANSWER_FIELD])}
    return {}


def reference_of(example: Example) -> dict[str, Any]:
    """Return the fields that graders compare with."""
    if shape_of(example) == "Prompt":
        return dict(example["reference"])
    return {ANSWER_FIELD: text_of(answer_of(example))}


def text_of(message: dict[str, Any]) -> str:
    """Return a message's content as text."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content.strip()
    return "".join(part.get("text", "") for part in content if isinstance(part, dict)).strip()


def read_traits(examples: Iterable[Example], *, is_scored: bool = False) -> Traits:
    """Go through the examples once; `is_scored` tells that the tuned model is a reward model.

    Raises:
        ValueError: there are none.
    """
    count, labels, is_json, calls, has_references = 0, set[str](), True, False, True
    verdicts, shape = set[bool](), None
    for example in examples:
        count += 1
        shape = shape or shape_of(example)
        answer = answer_of(example)
        text = text_of(answer)
        if len(labels) <= MOST_LABELS:
            labels.add(text.casefold())
        calls = calls or bool(answer.get("tool_calls"))
        has_references = has_references and bool(answer)
        is_json = is_json and _is_json(text)
        if "label" in example:
            verdicts.add(bool(example["label"]))
    if shape is None:
        raise ValueError("there are no held-out examples")
    return Traits(shape, count, len(labels), has_references, is_json, calls, frozenset(verdicts), is_scored)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def why_not(metric: Metric, traits: Traits, graders: list[Grader]) -> str:
    """Return why a metric cannot be measured on this data; empty where it can."""
    checks: tuple[tuple[bool, str], ...] = (
        (
            metric != "PreferenceAccuracy" and traits.is_scored,
            "needs a model that answers, and a reward model scores only: use PreferenceAccuracy",
        ),
        (
            metric == "Perplexity" and traits.shape == "Prompt",
            "needs answers to be likely, and the rows are prompts without",
        ),
        (
            metric == "Perplexity" and traits.shape == "Judged" and True not in traits.verdicts,
            "needs completions of label true",
        ),
        (
            metric == "PreferenceAccuracy" and traits.shape not in ("Pair", "Judged"),
            "compares preferred answers with others, and the rows are no preferences",
        ),
        (
            metric == "PreferenceAccuracy" and traits.shape == "Judged" and len(traits.verdicts) < 2,
            "needs completions of both labels, true and false",
        ),
        (metric in _ANSWERED and traits.shape == "Text", "compares answers, and plain text has none: use Perplexity"),
        (
            metric in _ANSWERED and traits.shape == "Judged",
            "compares answers with good ones, and the rows hold judged ones: use PreferenceAccuracy",
        ),
        (
            metric in _COMPARED and not traits.has_references,
            f"compares answers with the field {ANSWER_FIELD}, which not every row has: use Grader",
        ),
        (
            metric == "ClassificationF1" and traits.labels > MOST_LABELS,
            f"is for {MOST_LABELS} labels at most, and the answers are more different ones",
        ),
        (
            metric == "ToolCallValid" and (traits.shape not in ("Conversation", "Pair") or not traits.calls_tools),
            "judges calls of tools, and no held-out answer calls one",
        ),
        (metric == "Grader" and not graders, "needs evaluation.graders"),
    )
    return next((reason for is_so, reason in checks if is_so), "")


def choose_metrics(evaluation: Evaluation, traits: Traits, graders: list[Grader]) -> list[Metric]:
    """Return what is measured: what is asked for, or all that tells something about this data."""
    if evaluation.metrics is not None:
        return [metric for metric in get_args(Metric) if metric in evaluation.metrics]
    gated = {gate.metric for gate in evaluation.gates or []}
    doubtful: dict[Metric, Callable[[], bool]] = {
        "ClassificationF1": lambda: 2 <= traits.labels <= min(_LABELS, traits.examples // 2),
        "JsonValid": lambda: evaluation.json_schema is not None or (traits.has_references and traits.is_json),
    }
    return [
        metric
        for metric in get_args(Metric)
        if metric in gated
        or (
            not why_not(metric, traits, graders)
            and (metric not in doubtful or doubtful[metric]())
            and (metric not in _COMPARED or traits.shape in ("Conversation", "Prompt"))
        )
    ]


def choose_gates(evaluation: Evaluation, traits: Traits, graders: list[Grader]) -> list[Gate]:
    """Return the gates: those that are asked for, or the one that fits the data."""
    if evaluation.gates is not None:
        return evaluation.gates
    match traits.shape:
        case "Conversation" | "Text":
            metric: Metric = "Perplexity"
        case "Pair" | "Judged":
            metric = "PreferenceAccuracy"
        case "Prompt":
            metric = "Grader"
    if evaluation.metrics is not None and metric not in evaluation.metrics:
        metric = choose_metrics(evaluation, traits, graders)[0]
    return [Gate(metric=metric, grader=graders[0].name if metric == "Grader" and graders else None, min_gain=0)]


def find_problem(evaluation: Evaluation, traits: Traits, graders: list[Grader], examples: Iterable[Example]) -> str:
    """Return what `evaluation` asks for and the data cannot give; empty where it can give all."""
    for field, metrics in (
        ("evaluation.metrics", evaluation.metrics or []),
        ("evaluation.gates", [gate.metric for gate in evaluation.gates or []]),
    ):
        for metric in metrics:
            if reason := why_not(metric, traits, graders):
                return f"{field} asks for {metric}, which {reason}"
    unknown = {gate.grader for gate in evaluation.gates or [] if gate.grader} - {one.name for one in graders}
    if unknown:
        return f"evaluation.gates names the grader {min(unknown)}: there are {', '.join(one.name for one in graders)}"
    if evaluation.gates is None and traits.shape == "Prompt" and not graders:
        return "the rows are prompts without answers: give evaluation.graders, or evaluation.gates"
    for number, example in enumerate(examples if graders else [], 1):
        for grader in graders:
            try:
                check_reference(grader, reference_of(example))
            except MissingReferenceError as error:
                return f"the grader {grader.name} and held-out example {number}: {error}"
    return ""
