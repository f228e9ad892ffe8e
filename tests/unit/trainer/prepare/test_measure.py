"""Real tokenizers with chat templates of many kinds: what is counted, learnt and lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_trainer.prepare.measure import Measured, measure
from finetune_trainer.tokenizer import Tokenizer
from model.tiny import CHAT_TEMPLATE, make_tiny_tokenizer

SYSTEM = {"role": "system", "content": "Be kind."}
DEVELOPER = {"role": "developer", "content": "Be brief."}
USER = {"role": "user", "content": "hello there"}
ANSWER = {"role": "assistant", "content": "good day"}
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "find", "arguments": {"id": 'N"1'}}}],
}
FOUND = {"role": "tool", "content": 'a "thing"\nof steel', "tool_call_id": "c"}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
CHAT = {"messages": [SYSTEM, USER, ANSWER]}
TOOL_CHAT = {"messages": [USER, CALL, FOUND, ANSWER], "tools": TOOLS}
PAIR = {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "no"}]}

OPENING = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}" + OPENING
NO_DEVELOPER = (
    "{% for m in messages if m.role != 'developer' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + OPENING
)
SYSTEM_LAST = (
    "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>"
    "{% if loop.last and m.role == 'user' and messages[0].role == 'system' %}{{ messages[0].content }} {% endif %}"
    "{{ m.content | trim }}<|end|>{% endfor %}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    + OPENING
)
JSON_ANSWERS = CHAT_TEMPLATE.replace("{{ message.content or '' }}", "{{ (message.content or '') | tojson }}")


def load(directory: Path, template: str = CHAT_TEMPLATE, **config: Any) -> Tokenizer:
    """Load a tokenizer with a template, as of a model with this configuration."""
    make_tiny_tokenizer(directory, template)
    (directory / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]} | config))
    return Tokenizer(directory, "pvc://models/tiny")


def look(tokenizer: Tokenizer, example: dict[str, Any], limit: int = 200) -> Measured:
    (measured,) = measure(tokenizer, limit, [example])
    return measured


def kinds(measured: Measured) -> list[str]:
    return [warned.kind for warned in measured.warnings]


@pytest.mark.parametrize(
    ("example", "learnt"),
    [
        (CHAT, ["good day<|end|>\n"]),
        (TOOL_CHAT, ['<|call|>find {"id": "N\\"1"}<|end|>\n', "good day<|end|>\n"]),
        ({"messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER]}, ["good day<|end|>\n"]),
        ({"text": "once upon a time"}, ["once upon a time<|end|>"]),
        (PAIR, ["good day<|end|>\n", "no<|end|>\n"]),
        ({"prompt": [USER], "completion": [ANSWER], "label": False}, ["good day<|end|>\n"]),
        ({"prompt": [SYSTEM, USER], "reference": {}}, []),
    ],
)
def test_of_every_shape_the_answers_are_learnt(tmp_path: Path, example: dict[str, Any], learnt: list[str]) -> None:
    tokenizer = load(tmp_path)
    measured = look(tokenizer, example)
    assert measured.problem is None
    assert measured.learnt == sum(len(tokenizer.tokenizer(text)["input_ids"]) for text in learnt)
    rendered = tokenizer.render_all(example)
    lengths = [len(tokenizer.tokenizer(one.text)["input_ids"]) for one in rendered.values()]
    assert (measured.tokens, measured.longest) == (sum(lengths), max(lengths))
    assert [one.text[start:end] for one in rendered.values() for start, end in one.spans] == learnt


@pytest.mark.parametrize(
    ("template", "example", "message"),
    [
        (NO_DEVELOPER, {"messages": [DEVELOPER, USER, ANSWER]}, "leaves out messages[0].content"),
        (NO_DEVELOPER, {"prompt": [DEVELOPER, USER], "reference": {}}, "leaves out prompt[0].content"),
        (NO_DEVELOPER, PAIR | {"prompt": [DEVELOPER, USER]}, "leaves out prompt[0].content"),
        (NO_DEVELOPER, {"messages": [USER, ANSWER], "tools": TOOLS}, "leaves out tools[0]"),
        (
            CHAT_TEMPLATE.replace("{{ call.function.name }}", ""),
            {"messages": [USER, CALL]},
            "messages[1].tool_calls[0]",
        ),
        (
            CHAT_TEMPLATE.replace("call.function.arguments", "{}"),
            {"messages": [USER, CALL]},
            "messages[1].tool_calls[0]",
        ),
        ("{% for m in messages %}<|{{ m.role }}|>hello{% endfor %}", CHAT, "leaves out"),
        (ALTERNATING, {"messages": [USER, USER, ANSWER]}, "the chat template fails: roles must alternate"),
        (ALTERNATING, PAIR | {"prompt": [USER, USER]}, "the chat template fails: roles must alternate"),
        (
            "{% if messages | length > 2 %}long{% endif %}" + NO_DEVELOPER,
            PAIR | {"prompt": [SYSTEM, USER]},
            "renders the prompt differently with and without its answer",
        ),
    ],
)
def test_what_a_template_loses_or_refuses_is_said(
    tmp_path: Path, template: str, example: dict[str, Any], message: str
) -> None:
    problem = look(load(tmp_path, template), example).problem
    assert problem is not None
    assert problem.kind == "template"
    assert message in str(problem)


@pytest.mark.parametrize(("template", "example"), [(SYSTEM_LAST, CHAT), (JSON_ANSWERS, TOOL_CHAT)])
def test_what_a_template_moves_or_escapes_is_found_again(
    tmp_path: Path, template: str, example: dict[str, Any]
) -> None:
    problem = look(load(tmp_path, template), example).problem
    assert problem is None or "leaves out" not in str(problem)


@pytest.mark.parametrize(
    ("example", "limit", "message"),
    [
        ({"messages": [{"role": "user", "content": "x" * 50}, ANSWER]}, 30, "its first 30 tokens hold no answer"),
        (PAIR | {"prompt": [{"role": "user", "content": "x" * 50}]}, 30, "its first 30 tokens hold no answer"),
        ({"prompt": [{"role": "user", "content": "x" * 50}], "reference": {}}, 30, "leave no room for an answer"),
    ],
)
def test_an_example_whose_answer_lies_beyond_the_limit_is_refused(
    tmp_path: Path, example: dict[str, Any], limit: int, message: str
) -> None:
    problem = look(load(tmp_path), example, limit).problem
    assert problem is not None
    assert message in str(problem)


def test_where_questions_are_learnt_too_a_cut_answer_is_only_warned_of(tmp_path: Path) -> None:
    example = {"messages": [{"role": "user", "content": "x" * 50}, ANSWER]}
    (measured,) = measure(load(tmp_path), 30, [example], learns_all=True)
    assert (measured.problem, measured.learnt, kinds(measured)) == (None, 30, ["truncated"])


def test_an_answer_that_is_cut_is_warned_of_and_counted_as_far_as_it_is_learnt(tmp_path: Path) -> None:
    tokenizer = load(tmp_path)
    whole, cut = (look(tokenizer, {"messages": [USER, ANSWER]}, limit) for limit in (200, 22))
    assert (kinds(whole), kinds(cut)) == ([], ["truncated"])
    assert whole.learnt - cut.learnt == whole.longest - 22


@pytest.mark.parametrize(
    ("template", "example", "warned"),
    [
        (PLAIN, {"messages": [USER, ANSWER]}, ["stop"]),
        (PLAIN, PAIR, ["stop", "stop"]),
        (PLAIN, {"text": "once upon"}, []),
        (CHAT_TEMPLATE, {"messages": [USER, {"role": "assistant", "content": "y"}]}, ["short"]),
        (CHAT_TEMPLATE, {"messages": [USER, {"role": "assistant", "content": "no"}]}, []),
        (CHAT_TEMPLATE, {"messages": [USER | {"name": "Ada"}, ANSWER]}, ["name"]),
        (CHAT_TEMPLATE, {"messages": [{"role": "user", "content": "a <|end|> b"}, ANSWER]}, ["special"]),
    ],
)
def test_what_is_likely_a_mistake_is_warned_of(
    tmp_path: Path, template: str, example: dict[str, Any], warned: list[str]
) -> None:
    measured = look(load(tmp_path, template), example)
    assert measured.problem is None
    assert kinds(measured) == warned


def test_a_stop_token_may_be_named_by_any_of_the_models_files(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("<|end|>", "<|pad|>")
    assert kinds(look(load(tmp_path / "a", template), {"messages": [USER, ANSWER]})) == ["stop"]
    assert kinds(look(load(tmp_path / "b", template, eos_token_id=[0, 1]), {"messages": [USER, ANSWER]})) == []
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert kinds(look(load(tmp_path / "c", template), {"messages": [USER, ANSWER]})) == []
