"""Decides which metrics can be computed on the held-out data. No I/O.

`prepare` uses it to refuse a gate before the job requests a GPU, and the evaluation to choose metrics.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

from finetune_api.evaluation import Evaluation, Gate, Metric
from finetune_api.graders import Grader

from finetune_pod.grading import ANSWER_FIELD, MissingReferenceError, check_reference
from finetune_pod.requests import find_last_answer, get_parts
from finetune_pod.turns import split_reasoning

Example = dict[str, Any]
Shape = Literal["Conversation", "Text", "Pair", "Labeled", "Prompt"]
"""The shape of a prepared example: messages, plain text, chosen and rejected, a completion with a label, a prompt."""

MAX_LABELS = 256
"""Different references for ClassificationF1 at most."""
_DEFAULT_MAX_LABELS = 50
"""Different references for ClassificationF1 at most if the job does not ask for it."""
_NEEDS_REFERENCE: frozenset[Metric] = frozenset(
    {"ExactMatch", "TokenF1", "RougeL", "ClassificationF1", "Bleu", "Rouge1", "Rouge2"}
)
"""Metrics that compare an answer with a reference."""
_NEEDS_ANSWER = _NEEDS_REFERENCE | {"Grader", "JsonValid"}
_GENERATED: tuple[Metric, ...] = (
    "Grader",
    "TokenF1",
    "RougeL",
    "ExactMatch",
    "ClassificationF1",
    "Bleu",
    "Rouge1",
    "Rouge2",
    "JsonValid",
    "ToolCallValid",
)
"""Metrics of generated answers, in the order in which the default gates prefer them."""
_MAX_REGRESSION = 0.1
"""How far the default gate lets a metric of generated answers fall. With 0.05 and 20 examples, noise alone would stop
two of three models whose answers are as good as before."""


@dataclass(frozen=True)
class Traits:
    """The properties of the held-out examples that decide which metrics can be computed."""

    shape: Shape
    """That of the examples besides plain text, if there are any; only they count below."""
    examples: int
    distinct_references: int
    """The number of different references; MAX_LABELS + 1 if there are more."""
    has_references: bool
    """Whether every example has a reference answer."""
    is_json: bool
    """Whether every reference is a JSON object or list."""
    calls_tools: bool
    """Whether a reference contains a tool call."""
    labels: frozenset[bool]
    """The labels of the completions."""
    has_reasoning: bool = False
    """Whether a reference answer begins with a thought."""
    is_reward_model: bool = False
    """Whether the tuned model scores answers and does not generate any."""


def get_shape(example: Example) -> Shape:
    """Return the shape of a prepared example."""
    if "messages" in example:
        return "Conversation"
    if "text" in example:
        return "Text"
    if "chosen" in example:
        return "Pair"
    return "Labeled" if "completion" in example else "Prompt"


def get_answer(example: Example) -> dict[str, Any]:
    """Return the message that is the reference answer; empty if there is none."""
    match get_shape(example):
        case "Conversation":
            return dict(example["messages"][find_last_answer(example["messages"])])
        case "Pair":
            return dict(example["chosen"][-1])
        case "Labeled":
            return dict(example["completion"][-1]) if example["label"] else {}
        case "Prompt" if isinstance(example["reference"].get(ANSWER_FIELD), str | int | float):
            return {"content": str(example["reference"][ANSWER_FIELD])}
    return {}


def get_reference(example: Example) -> dict[str, Any]:
    """Return the fields that graders compare an answer with."""
    if get_shape(example) == "Prompt":
        return dict(example["reference"])
    return {ANSWER_FIELD: get_text(get_answer(example))}


def get_text(message: dict[str, Any]) -> str:
    """Return a message's content as text."""
    return "\n".join(get_parts(message.get("content"))).strip()


def read_traits(examples: Iterable[Example], *, is_reward_model: bool = False) -> Traits:
    """Return the traits of the examples, which are read once.

    Raises:
        ValueError: there are no examples.
    """
    texts, count, references, is_json, calls_tools, has_references = 0, 0, set[str](), True, False, True
    labels, has_reasoning = set[bool](), False
    shape: Shape | None = None
    for example in examples:
        if get_shape(example) == "Text":
            texts += 1
            continue
        count += 1
        shape = shape or get_shape(example)
        answer = get_answer(example)
        text = get_text(answer)
        if len(references) <= MAX_LABELS:
            references.add(text.casefold())
        calls_tools = calls_tools or bool(answer.get("tool_calls"))
        has_references = has_references and bool(answer)
        is_json = is_json and _is_json(text)
        has_reasoning = has_reasoning or bool(answer and split_reasoning(answer)[0])
        if "label" in example:
            labels.add(bool(example["label"]))
    if not texts + count:
        raise ValueError("there are no held-out examples")
    return Traits(
        shape=shape or "Text",
        examples=count or texts,
        distinct_references=len(references),
        has_references=has_references,
        is_json=is_json,
        calls_tools=calls_tools,
        labels=frozenset(labels),
        has_reasoning=has_reasoning,
        is_reward_model=is_reward_model,
    )


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def explain_not_measurable(metric: Metric, traits: Traits, graders: list[Grader]) -> str:
    """Return why a metric cannot be computed on this data; empty if it can."""
    checks: tuple[tuple[bool, str], ...] = (
        (
            metric != "PreferenceAccuracy" and traits.is_reward_model,
            "needs generated answers; a reward model only scores: use PreferenceAccuracy",
        ),
        (
            metric == "Perplexity" and traits.shape == "Prompt",
            "needs reference answers; these rows are prompts only",
        ),
        (
            metric == "Perplexity" and traits.shape == "Labeled" and True not in traits.labels,
            "needs completions whose label is true",
        ),
        (
            metric == "PreferenceAccuracy" and traits.shape not in ("Pair", "Labeled"),
            "compares preferred with rejected answers; these rows have no preferences",
        ),
        (
            metric == "PreferenceAccuracy" and traits.shape == "Labeled" and len(traits.labels) < 2,
            "needs completions with both labels, true and false",
        ),
        (metric in _NEEDS_ANSWER and traits.shape == "Text", "compares answers; plain text has none: use Perplexity"),
        (
            metric in _NEEDS_ANSWER and traits.shape == "Labeled",
            "needs reference answers; these rows have labeled completions: use PreferenceAccuracy",
        ),
        (
            metric in _NEEDS_REFERENCE and not traits.has_references,
            f"needs the field {ANSWER_FIELD} in every row, and some do not have it: use Grader",
        ),
        (
            metric == "ClassificationF1" and traits.distinct_references > MAX_LABELS,
            f"supports {MAX_LABELS} different answers at most; these rows have more",
        ),
        (
            metric == "ToolCallValid" and (traits.shape not in ("Conversation", "Pair") or not traits.calls_tools),
            "checks tool calls; no held-out answer has one",
        ),
        (metric == "Grader" and not graders, "needs evaluation.graders"),
    )
    return next((reason for is_so, reason in checks if is_so), "")


def choose_metrics(evaluation: Evaluation, traits: Traits, graders: list[Grader]) -> list[Metric]:
    """Return the metrics to compute: those that the job names, or all that are useful on this data."""
    if evaluation.metrics is not None:
        return [metric for metric in get_args(Metric) if metric in evaluation.metrics]
    gated = {gate.metric for gate in choose_gates(evaluation, traits, graders)}
    conditional: dict[Metric, Callable[[], bool]] = {
        "ClassificationF1": lambda: 2 <= traits.distinct_references <= min(_DEFAULT_MAX_LABELS, traits.examples // 2),
        "JsonValid": lambda: evaluation.json_schema is not None or (traits.has_references and traits.is_json),
    }
    return [
        metric
        for metric in get_args(Metric)
        if metric in gated
        or (
            not explain_not_measurable(metric, traits, graders)
            and (metric not in conditional or conditional[metric]())
            and (metric not in _NEEDS_REFERENCE or traits.shape in ("Conversation", "Prompt"))
        )
    ]


def choose_gates(evaluation: Evaluation, traits: Traits, graders: list[Grader]) -> list[Gate]:
    """Return the gates: those that the job has, or a default for this data.

    By default the likelihoods must improve, and the generated answers must not get worse. Where there is only one of
    the two, it must improve. `check_evaluation` refuses a default gate that cannot be measured.
    """
    if evaluation.gates is not None:
        return evaluation.gates
    listed = [metric for metric in get_args(Metric) if evaluation.metrics is None or metric in evaluation.metrics]
    likelihood: Metric = "PreferenceAccuracy" if traits.shape in ("Pair", "Labeled") else "Perplexity"
    metrics = [likelihood] if likelihood in listed and traits.shape != "Prompt" else []
    # A thought may be longer than maxNewTokens, and then there is no answer to measure.
    candidates = [] if traits.has_reasoning else [metric for metric in _GENERATED if metric in listed]
    measurable = (metric for metric in candidates if not explain_not_measurable(metric, traits, graders))
    metrics = [*metrics, *islice(measurable, 1)] or listed[:1]
    return [_build_default_gate(metric, graders, must_improve=not index) for index, metric in enumerate(metrics)]


def _build_default_gate(metric: Metric, graders: list[Grader], *, must_improve: bool) -> Gate:
    requirement = {"min_gain": 0.0} if must_improve else {"max_regression": _MAX_REGRESSION}
    return Gate(metric=metric, grader=graders[0].name if metric == "Grader" and graders else None, **requirement)


def _check_default_gates(evaluation: Evaluation, traits: Traits, graders: list[Grader]) -> str:
    if traits.shape == "Prompt" and not graders:
        return "the rows are prompts without answers: set evaluation.graders or evaluation.gates"
    for gate in choose_gates(evaluation, traits, graders):
        if reason := explain_not_measurable(gate.metric, traits, graders):
            return f"the default gate on {gate.metric} {reason}: hold out other data, or set evaluation.gates"
    return ""


def check_evaluation(evaluation: Evaluation, traits: Traits, graders: list[Grader], examples: Iterable[Example]) -> str:
    """Return why `evaluation` cannot be computed on the held-out examples; empty if it can."""
    for field, metrics in (
        ("evaluation.metrics", evaluation.metrics or []),
        ("evaluation.gates", [gate.metric for gate in evaluation.gates or []]),
    ):
        for metric in metrics:
            if reason := explain_not_measurable(metric, traits, graders):
                return f"{field} asks for {metric}, which {reason}"
    unknown = {gate.grader for gate in evaluation.gates or [] if gate.grader} - {grader.name for grader in graders}
    if unknown:
        names = ", ".join(grader.name for grader in graders)
        return f"evaluation.gates names the unknown grader {min(unknown)}: the known graders are {names or 'none'}"
    if evaluation.gates is None and (problem := _check_default_gates(evaluation, traits, graders)):
        return problem
    for number, example in enumerate(examples if graders else [], 1):
        for grader in graders:
            try:
                check_reference(grader, get_reference(example))
            except MissingReferenceError as error:
                return f"grader {grader.name}, held-out example {number}: {error}"
    return ""
