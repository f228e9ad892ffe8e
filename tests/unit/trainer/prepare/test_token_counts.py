"""Real tokenizers with many kinds of chat templates: counts, targets, omissions."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_trainer.prepare.token_counts import TokenCounts, count_tokens
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


def count(tokenizer: Tokenizer, example: dict[str, Any], max_length: int = 200) -> TokenCounts:
    (counts,) = count_tokens(tokenizer, max_length, [example])
    return counts


def kinds(counts: TokenCounts) -> list[str]:
    return [warning.kind for warning in counts.warnings]


@pytest.mark.parametrize(
    ("example", "targets"),
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
def test_the_answers_of_every_shape_are_targets(tmp_path: Path, example: dict[str, Any], targets: list[str]) -> None:
    tokenizer = load(tmp_path)
    counts = count(tokenizer, example)
    assert counts.error is None
    assert counts.targets == sum(len(tokenizer.tokenizer(text)["input_ids"]) for text in targets)
    rendered = tokenizer.render_all(example)
    lengths = [len(tokenizer.tokenizer(sequence.text)["input_ids"]) for sequence in rendered.values()]
    assert (counts.total, counts.longest) == (sum(lengths), max(lengths))
    assert [sequence.text[start:end] for sequence in rendered.values() for start, end in sequence.spans] == targets


@pytest.mark.parametrize(
    ("template", "example", "message"),
    [
        (NO_DEVELOPER, {"messages": [DEVELOPER, USER, ANSWER]}, "omits messages[0].content"),
        (NO_DEVELOPER, {"prompt": [DEVELOPER, USER], "reference": {}}, "omits prompt[0].content"),
        (NO_DEVELOPER, PAIR | {"prompt": [DEVELOPER, USER]}, "omits prompt[0].content"),
        (NO_DEVELOPER, {"messages": [USER, ANSWER], "tools": TOOLS}, "omits tools[0]"),
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
        ("{% for m in messages %}<|{{ m.role }}|>hello{% endfor %}", CHAT, "omits"),
        (ALTERNATING, {"messages": [USER, USER, ANSWER]}, "the chat template fails: roles must alternate"),
        (ALTERNATING, PAIR | {"prompt": [USER, USER]}, "the chat template fails: roles must alternate"),
        (
            "{% if messages | length > 2 %}long{% endif %}" + NO_DEVELOPER,
            PAIR | {"prompt": [SYSTEM, USER]},
            "renders the prompt differently with and without its answer",
        ),
    ],
)
def test_omissions_and_failures_of_a_template_are_reported(
    tmp_path: Path, template: str, example: dict[str, Any], message: str
) -> None:
    error = count(load(tmp_path, template), example).error
    assert error is not None
    assert error.kind == "template"
    assert message in str(error)


@pytest.mark.parametrize(("template", "example"), [(SYSTEM_LAST, CHAT), (JSON_ANSWERS, TOOL_CHAT)])
def test_moved_or_escaped_content_is_not_reported_as_omitted(
    tmp_path: Path, template: str, example: dict[str, Any]
) -> None:
    error = count(load(tmp_path, template), example).error
    assert error is None or "omits" not in str(error)


@pytest.mark.parametrize(
    ("example", "max_length", "message"),
    [
        (
            {"messages": [{"role": "user", "content": "x" * 50}, ANSWER]},
            30,
            "the first 30 tokens contain no part of an answer",
        ),
        (
            PAIR | {"prompt": [{"role": "user", "content": "x" * 50}]},
            30,
            "the first 30 tokens contain no part of an answer",
        ),
        (
            {"prompt": [{"role": "user", "content": "x" * 50}], "reference": {}},
            30,
            "tokens, which leaves none for an answer",
        ),
    ],
)
def test_an_example_whose_answer_is_truncated_away_is_refused(
    tmp_path: Path, example: dict[str, Any], max_length: int, message: str
) -> None:
    error = count(load(tmp_path), example, max_length).error
    assert error is not None
    assert message in str(error)


def test_a_truncated_answer_is_a_warning_if_prompts_are_targets(tmp_path: Path) -> None:
    example = {"messages": [{"role": "user", "content": "x" * 50}, ANSWER]}
    (counts,) = count_tokens(load(tmp_path), 30, [example], train_on_prompts=True)
    assert (counts.error, counts.targets, kinds(counts)) == (None, 30, ["truncated"])


def test_the_targets_of_a_truncated_answer_are_counted_up_to_the_limit(tmp_path: Path) -> None:
    tokenizer = load(tmp_path)
    whole, truncated = (count(tokenizer, {"messages": [USER, ANSWER]}, max_length) for max_length in (200, 22))
    assert (kinds(whole), kinds(truncated)) == ([], ["truncated"])
    assert whole.targets - truncated.targets == whole.longest - 22


@pytest.mark.parametrize(
    ("template", "example", "warnings"),
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
def test_likely_mistakes_cause_warnings(
    tmp_path: Path, template: str, example: dict[str, Any], warnings: list[str]
) -> None:
    counts = count(load(tmp_path, template), example)
    assert counts.error is None
    assert kinds(counts) == warnings


def test_a_stop_token_may_be_in_any_file_of_the_model(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("<|end|>", "<|pad|>")
    assert kinds(count(load(tmp_path / "a", template), {"messages": [USER, ANSWER]})) == ["stop"]
    assert kinds(count(load(tmp_path / "b", template, eos_token_id=[0, 1]), {"messages": [USER, ANSWER]})) == []
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert kinds(count(load(tmp_path / "c", template), {"messages": [USER, ANSWER]})) == []
