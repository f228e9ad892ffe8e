"""Which metrics and gates fit which data."""

from typing import Any, get_args

import pytest
from finetune_api.evaluation import Evaluation, Metric
from finetune_api.graders import Grader
from finetune_pod.measurable import check_evaluation, choose_gates, choose_metrics, read_traits
from hypothesis import given
from hypothesis import strategies as st
from unit.evaluations import CITY, gate

LAST = Grader.model_validate({"name": "last", "stringCheck": {}})
CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {}}}


def chats(*answers: str, **message: Any) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": answer} | message,
            ]
        }
        for answer in answers
    ]


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


TEXTS = [{"text": "one"}, {"text": "two"}]
PAIRS = [{"prompt": [], "chosen": say("yes"), "rejected": say("no")}] * 2
LABELED = [{"prompt": [], "completion": say("x"), "label": label} for label in (True, False)]
GOOD = LABELED[:1] * 2
PROMPTS = [{"prompt": [], "reference": {"city": "Oslo"}}] * 2
ANSWERED = [{"prompt": [], "reference": {"answer": 5}}] * 2
WORDS = ["ExactMatch", "TokenF1", "RougeL", "Bleu", "Rouge1", "Rouge2"]


@pytest.mark.parametrize(
    ("examples", "graders", "metrics", "gates"),
    [
        (chats("red sky", "blue sea"), [], ["Perplexity", *WORDS], ["Perplexity", "TokenF1"]),
        (chats("a b", "c d"), [LAST], ["Perplexity", "Grader", *WORDS], ["Perplexity", "Grader"]),
        (
            chats("yes", "no", "no", "Yes"),
            [],
            ["Perplexity", *WORDS[:3], "ClassificationF1", *WORDS[3:]],
            ["Perplexity", "TokenF1"],
        ),
        (chats('{"a": 1}', "[2]"), [], ["Perplexity", *WORDS[:3], "JsonValid", *WORDS[3:]], ["Perplexity", "TokenF1"]),
        (
            chats("", "x", tool_calls=[CALL]),
            [],
            ["Perplexity", *WORDS[:3], "ToolCallValid", *WORDS[3:]],
            ["Perplexity", "TokenF1"],
        ),
        (TEXTS, [], ["Perplexity"], ["Perplexity"]),
        ([*TEXTS, *chats("red sky", "blue sea")], [], ["Perplexity", *WORDS], ["Perplexity", "TokenF1"]),
        ([*chats("red sky", "blue sea"), *TEXTS], [], ["Perplexity", *WORDS], ["Perplexity", "TokenF1"]),
        (PAIRS, [], ["Perplexity", "PreferenceAccuracy", "TokenF1"], ["PreferenceAccuracy", "TokenF1"]),
        (LABELED, [], ["Perplexity", "PreferenceAccuracy"], ["PreferenceAccuracy"]),
        (PROMPTS, [CITY], ["Grader"], ["Grader"]),
        (ANSWERED, [LAST], ["Grader", *WORDS], ["Grader"]),
    ],
)
def test_default_metrics_follow_from_the_data(
    examples: list[dict[str, Any]], graders: list[Grader], metrics: list[str], gates: list[str]
) -> None:
    evaluation, traits = Evaluation(), read_traits(examples)
    assert choose_metrics(evaluation, traits, graders) == metrics
    first, *others = choose_gates(evaluation, traits, graders)
    assert [gate.metric for gate in (first, *others)] == gates
    assert (first.min_gain, [gate.max_regression for gate in others]) == (0, [0.1] * len(others))
    assert all(gate.grader == (graders[0].name if gate.metric == "Grader" else None) for gate in (first, *others))
    assert check_evaluation(evaluation, traits, graders, examples) == ""


def test_only_preferences_are_measured_for_a_reward_model() -> None:
    traits = read_traits(PAIRS, is_reward_model=True)
    assert choose_metrics(Evaluation(), traits, []) == ["PreferenceAccuracy"]
    problem = check_evaluation(Evaluation.model_validate({"metrics": ["Perplexity"]}), traits, [], PAIRS)
    assert "a reward model only scores: use PreferenceAccuracy" in problem


@pytest.mark.parametrize(
    ("settings", "examples", "graders", "problem"),
    [
        (gate("ExactMatch"), TEXTS, [], "evaluation.gates asks for ExactMatch, which compares answers; plain text"),
        ({"metrics": ["RougeL"]}, TEXTS, [], "evaluation.metrics asks for RougeL"),
        (gate("ToolCallValid"), chats("a", "b"), [], "no held-out answer has one"),
        (gate("PreferenceAccuracy"), chats("a", "b"), [], "these rows have no preferences"),
        (gate("PreferenceAccuracy"), GOOD, [], "both labels"),
        (gate("ExactMatch"), LABELED, [], "use PreferenceAccuracy"),
        (gate("Perplexity"), PROMPTS, [CITY], "these rows are prompts only"),
        (gate("Bleu"), PROMPTS, [CITY], "in every row, and some do not have it: use Grader"),
        (gate("ClassificationF1"), chats(*map(str, range(300))), [], "supports 256 different answers at most"),
        (gate("Grader", grader="city"), chats("a", "b"), [], "needs evaluation.graders"),
        (
            gate("Grader", grader="town"),
            PROMPTS,
            [CITY],
            "names the unknown grader town: the known graders are city",
        ),
        ({}, PROMPTS, [], "set evaluation.graders"),
        ({}, chats("a", "b"), [CITY], "grader city, held-out example 1: the grader needs the field city"),
    ],
)
def test_metrics_that_cannot_be_measured_are_refused(
    settings: dict[str, Any], examples: list[dict[str, Any]], graders: list[Grader], problem: str
) -> None:
    evaluation = Evaluation.model_validate(settings)
    assert problem in check_evaluation(evaluation, read_traits(examples), graders, examples)


@given(
    st.sampled_from([chats("red sky", "b"), TEXTS, PAIRS, LABELED, PROMPTS, ANSWERED]),
    st.lists(st.sampled_from(get_args(Metric)), max_size=3, unique=True),
)
def test_accepted_metrics_are_measured_and_gated(examples: list[dict[str, Any]], metrics: list[str]) -> None:
    evaluation, traits = Evaluation.model_validate({"metrics": metrics} if metrics else {}), read_traits(examples)
    graders = [Grader.model_validate({"name": "fixed", "stringCheck": {"reference": "x"}})]
    if check_evaluation(evaluation, traits, graders, examples):
        return
    measured = choose_metrics(evaluation, traits, graders)
    assert measured
    assert not metrics or set(measured) == set(metrics)
    assert {gate.metric for gate in choose_gates(evaluation, traits, graders)} <= set(measured)


def test_a_default_gate_that_cannot_be_measured_is_refused() -> None:
    """Otherwise a job without any gate would be served."""
    for examples in (LABELED[:1] * 2, LABELED[1:] * 2):
        problem = check_evaluation(Evaluation(), read_traits(examples), [], examples)
        assert problem.startswith("the default gate on PreferenceAccuracy needs completions with both labels")
    assert check_evaluation(Evaluation(gates=[]), read_traits(LABELED[1:]), [], LABELED[1:]) == ""


def test_answers_with_reasoning_have_no_default_gate_on_what_is_generated() -> None:
    """A thought may be longer than the generated tokens, and then nothing is left to compare."""
    for message in ({"content": "<think>hm</think>yes"}, {"content": "yes", "reasoning_content": "hm"}):
        examples = [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant"} | message]}] * 2
        assert [gate.metric for gate in choose_gates(Evaluation(), read_traits(examples), [])] == ["Perplexity"]
