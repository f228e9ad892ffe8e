"""Which metrics and gates fit which data."""

from typing import Any, get_args

import pytest
from finetune_api.evaluation import Evaluation, Metric
from finetune_api.graders import Grader
from finetune_pod.measurable import choose_gates, choose_metrics, find_problem, read_traits
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
JUDGED = [{"prompt": [], "completion": say("x"), "label": label} for label in (True, False)]
GOOD = JUDGED[:1] * 2
PROMPTS = [{"prompt": [], "reference": {"city": "Oslo"}}] * 2
ANSWERED = [{"prompt": [], "reference": {"answer": 5}}] * 2
WORDS = ["ExactMatch", "TokenF1", "RougeL", "Bleu", "Rouge1", "Rouge2"]


@pytest.mark.parametrize(
    ("examples", "graders", "metrics", "gate"),
    [
        (chats("red sky", "blue sea"), [], ["Perplexity", *WORDS], "Perplexity"),
        (chats("a b", "c d"), [LAST], ["Perplexity", "Grader", *WORDS], "Perplexity"),
        (chats("yes", "no", "no", "Yes"), [], ["Perplexity", *WORDS[:3], "ClassificationF1", *WORDS[3:]], "Perplexity"),
        (chats('{"a": 1}', "[2]"), [], ["Perplexity", *WORDS[:3], "JsonValid", *WORDS[3:]], "Perplexity"),
        (
            chats("", "x", tool_calls=[CALL]),
            [],
            ["Perplexity", *WORDS[:3], "ToolCallValid", *WORDS[3:]],
            "Perplexity",
        ),
        (TEXTS, [], ["Perplexity"], "Perplexity"),
        (PAIRS, [], ["Perplexity", "PreferenceAccuracy"], "PreferenceAccuracy"),
        (JUDGED, [], ["Perplexity", "PreferenceAccuracy"], "PreferenceAccuracy"),
        (PROMPTS, [CITY], ["Grader"], "Grader"),
        (ANSWERED, [LAST], ["Grader", *WORDS], "Grader"),
    ],
)
def test_what_is_measured_by_default_follows_from_the_data(
    examples: list[dict[str, Any]], graders: list[Grader], metrics: list[str], gate: str
) -> None:
    evaluation, traits = Evaluation(), read_traits(examples)
    assert choose_metrics(evaluation, traits, graders) == metrics
    (chosen,) = choose_gates(evaluation, traits, graders)
    assert (chosen.metric, chosen.min_gain) == (gate, 0)
    assert chosen.grader == (graders[0].name if gate == "Grader" else None)
    assert find_problem(evaluation, traits, graders, examples) == ""


def test_of_a_reward_model_only_the_preferences_are_measured() -> None:
    traits = read_traits(PAIRS, is_scored=True)
    assert choose_metrics(Evaluation(), traits, []) == ["PreferenceAccuracy"]
    problem = find_problem(Evaluation.model_validate({"metrics": ["Perplexity"]}), traits, [], PAIRS)
    assert "a reward model scores only: use PreferenceAccuracy" in problem


@pytest.mark.parametrize(
    ("asked", "examples", "graders", "problem"),
    [
        (gate("ExactMatch"), TEXTS, [], "evaluation.gates asks for ExactMatch, which compares answers, and plain text"),
        ({"metrics": ["RougeL"]}, TEXTS, [], "evaluation.metrics asks for RougeL"),
        (gate("ToolCallValid"), chats("a", "b"), [], "no held-out answer calls one"),
        (gate("PreferenceAccuracy"), chats("a", "b"), [], "the rows are no preferences"),
        (gate("PreferenceAccuracy"), GOOD, [], "both labels"),
        (gate("ExactMatch"), JUDGED, [], "use PreferenceAccuracy"),
        (gate("Perplexity"), PROMPTS, [CITY], "prompts without"),
        (gate("Bleu"), PROMPTS, [CITY], "which not every row has: use Grader"),
        (gate("ClassificationF1"), chats(*map(str, range(300))), [], "256 labels at most"),
        (gate("Grader", grader="city"), chats("a", "b"), [], "needs evaluation.graders"),
        (gate("Grader", grader="town"), PROMPTS, [CITY], "names the grader town: there are city"),
        ({}, PROMPTS, [], "give evaluation.graders"),
        ({}, chats("a", "b"), [CITY], "grader city and held-out example 1: the grader compares with city"),
    ],
)
def test_what_the_data_cannot_give_is_refused_with_the_field(
    asked: dict[str, Any], examples: list[dict[str, Any]], graders: list[Grader], problem: str
) -> None:
    evaluation = Evaluation.model_validate(asked)
    assert problem in find_problem(evaluation, read_traits(examples), graders, examples)


@given(
    st.sampled_from([chats("red sky", "b"), TEXTS, PAIRS, JUDGED, PROMPTS, ANSWERED]),
    st.lists(st.sampled_from(get_args(Metric)), max_size=3, unique=True),
)
def test_what_prepare_lets_pass_is_measured_and_gated(examples: list[dict[str, Any]], metrics: list[str]) -> None:
    evaluation, traits = Evaluation.model_validate({"metrics": metrics} if metrics else {}), read_traits(examples)
    graders = [Grader.model_validate({"name": "fixed", "stringCheck": {"reference": "x"}})]
    if find_problem(evaluation, traits, graders, examples):
        return
    measured = choose_metrics(evaluation, traits, graders)
    assert measured
    assert not metrics or set(measured) == set(metrics)
    assert {one.metric for one in choose_gates(evaluation, traits, graders)} <= set(measured)
