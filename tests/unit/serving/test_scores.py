"""Scores of single answers: known values."""

import json
from typing import Any

import pytest
from finetune_api.graders import Grader
from finetune_api.toolcalls import ToolFormat, learn_format
from finetune_serving.engine import Measured
from finetune_serving.estimators import Sample
from finetune_serving.questions import Question
from finetune_serving.scores import exact_match, json_valid, token_f1, tool_call_valid
from finetune_serving.scoring import Scoring, score
from finetune_serving.sidebyside import choose_samples
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template
from model.tiny import CHAT_TEMPLATE

HERMES = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    '{% for call in message.tool_calls or [] %}\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = HERMES.replace("<tool_call>\n", "").replace("\n</tool_call>", "").replace('arguments": ', 'parameters": ')
PYTHONIC = HERMES.replace('{"name": "{{ call.function.name }}", "arguments": ', "[{{ call.function.name }}(").replace(
    "{{ call.function.arguments | tojson }}}",
    "{% for key, value in call.function.arguments.items() %}{{ key }}={{ value }}{% endfor %})]",
)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def learn(template: str) -> ToolFormat | None:
    return learn_format(
        lambda messages, tools, opening: Template(template).render(
            messages=messages, tools=tools, add_generation_prompt=opening
        )
    )


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (HERMES, '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'),
        (HERMES, 'I ask. <tool_call>{"name":"weather","arguments":{"city": "Oslo"}}</tool_call>'),
        (LLAMA, '{"name": "weather", "parameters": {"city": "Oslo"}}'),
        (CHAT_TEMPLATE, '<|call|>weather {"city": "Oslo"}<|end|>'),
    ],
)
def test_calls_are_read_as_the_models_template_writes_them(template: str, answer: str) -> None:
    written = learn(template)
    assert written is not None
    assert tool_call_valid(answer, TOOLS, written) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "It rains.",
        '<tool_call>{"name": "tides", "arguments": {"city": "Oslo"}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": 7}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": "Os',
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call><tool_call>{"name": "", 5}',
        '{"name": "weather", "arguments": {"city": "Oslo"}}',
    ],
)
def test_calls_of_no_declared_tool_or_with_wrong_arguments_do_not_count(answer: str) -> None:
    written = learn(HERMES)
    assert written is not None
    assert tool_call_valid(answer, TOOLS, written) == 0


@pytest.mark.parametrize("template", [PYTHONIC, "{{ messages[9].content }}", "no calls here"])
def test_a_template_without_calls_as_json_has_no_format(template: str) -> None:
    assert learn(template) is None


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3))
def test_whatever_the_template_writes_is_read_back(arguments: dict[str, str]) -> None:
    written = learn(HERMES)
    assert written is not None
    text = f'<tool_call>\n{{"name": "weather", "arguments": {json.dumps(arguments)}}}\n</tool_call>'
    calls = written.parse(text)
    assert calls is not None
    assert [(call.name, call.arguments) for call in calls] == [("weather", arguments)]


@pytest.mark.parametrize(
    ("answer", "schema", "wanted"),
    [
        ('{"a": 1}', None, 1),
        ("[1, 2]", None, 1),
        ('"text"', None, 1),
        ("{'a': 1}", None, 0),
        ("NaN", None, 0),
        ('```json\n{"a": 1}\n```', None, 0),
        ("[" * 100_000, None, 0),
        ('{"a": 1}', {"required": ["a"]}, 1),
        ('{"b": 1}', {"required": ["a"]}, 0),
        ("{}", {"$ref": "http://127.0.0.1:1/schema"}, 0),
    ],
)
def test_json_is_valid_by_itself_and_by_a_schema(answer: str, schema: Any, wanted: float) -> None:
    assert json_valid(answer, schema) == wanted


def test_answers_are_compared_as_people_read_them() -> None:
    assert exact_match("The  Kettle!", "kettle") == 1
    assert exact_match("a pot", "kettle") == 0
    # SQuAD's script: 2 words in common of 3 and 2
    assert token_f1("the cat sat down", "A cat sat.") == pytest.approx(0.8)
    assert token_f1("", "cat") == 0
    assert token_f1("the", "a") == 1


def question(**example: Any) -> Question:
    return Question(example, prompt=(1,), reference="Oslo")


def test_every_shape_of_example_gets_the_scores_that_apply_to_it() -> None:
    grader = Grader.model_validate({"name": "city", "stringCheck": {"operation": "like"}})
    all_scores = Scoring(("Perplexity", "Grader", "ExactMatch", "TokenF1", "RougeL", "JsonValid", "Bleu"), (grader,))
    chat = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Oslo"}]}
    found = score(question(**chat), Measured(6.0, 3, answer="It is Oslo"), all_scores, None)
    assert {name: round(one, 3) for name, one in found.scores.items()} == {
        "ExactMatch": 0,
        "TokenF1": 0.5,
        "RougeL": 0.5,
        "JsonValid": 0,
        "Grader city": 1,
    }
    prompt = score(
        question(prompt=[], reference={"answer": "Rome"}),
        Measured(answer="Rome"),
        Scoring(("Grader",), (grader,)),
        None,
    )
    assert prompt.scores == {"Grader city": 1}
    pair: dict[str, Any] = {"prompt": [], "chosen": [{"role": "assistant", "content": "x"}], "rejected": []}
    preferring = Scoring(("PreferenceAccuracy",))
    assert score(question(**pair), Measured(6.0, 3, -2.5), preferring, None).scores == {"PreferenceAccuracy": 1}
    assert score(question(**pair), Measured(6.0, 3, -1.5), preferring, None).scores == {"PreferenceAccuracy": 0}
    unwanted = score(
        question(prompt=[], completion=[], label=False), Measured(6.0, 3, answer="x"), Scoring(("Perplexity",)), None
    )
    assert (unwanted.nll, unwanted.tokens, unwanted.judged) == (0, 0, (False, -2.0))


def test_calls_are_judged_only_where_one_is_wanted() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    scoring, written = Scoring(("ToolCallValid",)), learn(CHAT_TEMPLATE)
    calling = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}], "tools": TOOLS}
    saying = {"messages": [{"role": "assistant", "content": "rain"}], "tools": TOOLS}
    measured = Measured(answer='weather {"city": "Oslo"}', raw='<|call|>weather {"city": "Oslo"}')
    assert score(question(**calling), measured, scoring, written).scores == {"ToolCallValid": 1}
    assert score(question(**saying), measured, scoring, written).scores == {}


def test_the_report_shows_the_most_improved_the_most_regressed_and_the_first() -> None:
    questions = [question(prompt=[], reference={}) for _ in range(200)]
    base = [Sample(answer="b", scores={"ExactMatch": float(number == 150)}) for number in range(200)]
    tuned = [Sample(answer="t", scores={"ExactMatch": float(number == 120)}) for number in range(200)]
    shown = choose_samples(questions, {"base": base, "tuned": tuned})
    assert [(one["number"], one["why"]) for one in shown if one["why"] != "First"] == [
        (121, "Improved"),
        (151, "Regressed"),
    ]
    assert len(shown) == 22
    assert (shown[0]["base"], shown[0]["tuned"], shown[0]["reference"]) == ("b", "t", "Oslo")
    assert shown[-2]["scores"] == {"base": {"ExactMatch": 0.0}, "tuned": {"ExactMatch": 1.0}}
