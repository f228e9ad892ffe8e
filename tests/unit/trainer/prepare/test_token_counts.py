"""Real tokenizers with many kinds of chat templates: counts, targets, omissions."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_pod.chat import EncodedExample
from finetune_trainer.prepare.token_counts import SampleCounts, TokenCounts, count_tokens
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
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + OPENING
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
LAST_DIFFERS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if loop.last and m.role == 'assistant' %}() {% endif %}{{ m.content }}"
    "<|end|>{% endfor %}" + OPENING
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
        (CHAT, ["good day<|end|>"]),
        (TOOL_CHAT, ['<|call|>find {"id": "N\\"1"}<|end|>', "good day<|end|>"]),
        ({"messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER]}, ["good day<|end|>"]),
        ({"text": "once upon a time"}, ["once upon a time<|end|>"]),
        (PAIR, ["good day<|end|>", "no<|end|>"]),
        ({"prompt": [USER], "completion": [ANSWER], "label": False}, ["good day<|end|>"]),
        ({"prompt": [SYSTEM, USER], "reference": {}}, []),
    ],
)
def test_the_answers_of_every_shape_are_targets(tmp_path: Path, example: dict[str, Any], targets: list[str]) -> None:
    tokenizer = load(tmp_path)
    counts = count(tokenizer, example)
    assert counts.error is None
    assert counts.targets == sum(len(tokenizer.tokenizer(text)["input_ids"]) for text in targets)
    (encoded,) = tokenizer.encoder.encode([example])
    assert isinstance(encoded, EncodedExample)
    lengths = [len(sequence.ids) for sequences in encoded.sequences.values() for sequence in sequences]
    assert counts.samples == (SampleCounts(sum(lengths), max(lengths)),)
    assert (counts.learned, counts.unlearned) == (len(targets) if "text" not in example else 0, 0)


def test_every_sequence_of_a_conversation_is_a_sample(tmp_path: Path) -> None:
    counts = count(load(tmp_path, LAST_DIFFERS), {"messages": [USER, ANSWER, USER, ANSWER]})
    first, second = counts.samples
    assert (counts.learned, first.tokens < second.tokens) == (2, True)
    pieces = count(load(tmp_path), {"text": "x" * 50}, 20).samples
    assert [piece.tokens for piece in pieces] == [20, 20, 11]


def test_answers_that_are_not_learned_are_counted(tmp_path: Path) -> None:
    template = "{% if messages | length == 4 %}{{ raise_exception('no') }}{% endif %}" + CHAT_TEMPLATE
    counts = count(load(tmp_path, ALTERNATING), {"messages": [USER, ANSWER, ANSWER]})
    assert (counts.learned, counts.unlearned, kinds(counts)) == (1, 1, ["unlearned"])
    counts = count(load(tmp_path, template), {"messages": [USER, ANSWER, USER, ANSWER]})
    (warning,) = counts.warnings
    assert warning.message == "1 of 2 answers are learned: messages[3]: the chat template fails: no"


@pytest.mark.parametrize(
    ("template", "example", "message"),
    [
        (
            CHAT_TEMPLATE.replace("{{ call.function.name }}", ""),
            {"messages": [USER, CALL]},
            "omits answer[0].tool_calls[0]",
        ),
        (
            CHAT_TEMPLATE.replace("call.function.arguments", "{}"),
            {"messages": [USER, CALL]},
            "omits answer[0].tool_calls[0]",
        ),
        (CHAT_TEMPLATE.replace("message.content", "message.content | replace('good', 'bad')"), CHAT, "omits"),
        (ALTERNATING, {"messages": [USER, USER, ANSWER]}, "the chat template fails: roles must alternate"),
        (ALTERNATING, PAIR | {"prompt": [USER, USER]}, "the chat template fails: roles must alternate"),
        (
            "{% if messages[-1].content == 'no' %}whole{% endif %}" + CHAT_TEMPLATE,
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


@pytest.mark.parametrize(
    ("template", "example", "location"),
    [
        (NO_SYSTEM, {"messages": [SYSTEM, USER, ANSWER]}, "messages[0].content"),
        (NO_SYSTEM, {"messages": [DEVELOPER, USER, ANSWER]}, "messages[0].content"),
        (NO_SYSTEM, {"prompt": [SYSTEM, USER], "reference": {}}, "prompt[0].content"),
        (NO_SYSTEM, PAIR | {"prompt": [SYSTEM, USER]}, "prompt[0].content"),
        (NO_SYSTEM, {"messages": [USER, ANSWER], "tools": TOOLS}, "tools[0]"),
    ],
)
def test_what_the_server_leaves_out_too_is_a_warning(
    tmp_path: Path, template: str, example: dict[str, Any], location: str
) -> None:
    counts = count(load(tmp_path, template), example)
    assert counts.error is None
    (warning,) = counts.warnings
    assert warning.kind == "omitted"
    assert f"leaves out {location}," in warning.message


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


def test_answers_that_are_identical_once_truncated_are_refused(tmp_path: Path) -> None:
    answers = {"chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "good night"}]}
    tokenizer = load(tmp_path)
    (encoded,) = tokenizer.encoder.encode([PAIR | answers])
    assert isinstance(encoded, EncodedExample)
    prompt = len(encoded.answers["chosen"][0].prompt)
    error = count(tokenizer, PAIR | answers, prompt + 3).error
    assert error is not None
    assert error.kind == "equal"
    assert count(tokenizer, PAIR | answers).error is None


def test_a_truncated_answer_is_a_warning_if_prompts_are_targets(tmp_path: Path) -> None:
    example = {"messages": [{"role": "user", "content": "x" * 50}, ANSWER]}
    (counts,) = count_tokens(load(tmp_path), 30, [example], train_on_prompts=True)
    assert (counts.error, counts.targets, kinds(counts)) == (None, 30, ["truncated"])


def test_the_targets_of_a_truncated_answer_are_counted_up_to_the_limit(tmp_path: Path) -> None:
    tokenizer = load(tmp_path)
    whole, truncated = (count(tokenizer, {"messages": [USER, ANSWER]}, max_length) for max_length in (200, 21))
    assert (kinds(whole), kinds(truncated)) == ([], ["truncated"])
    assert whole.targets - truncated.targets == whole.samples[0].longest - 21


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


def test_an_answer_that_is_trained_without_thinking_is_a_warning(tmp_path: Path) -> None:
    template = PLAIN.replace(
        "<|assistant|>{% endif",
        "<|assistant|><think>{% if not (enable_thinking | default(true)) %}</think>{% endif %}{% endif",
    ).replace("\n{% endfor", "<|end|>{% endfor")
    tokenizer = load(tmp_path, template)
    assert kinds(count(tokenizer, {"messages": [USER, ANSWER]})) == ["thinking"]
    assert kinds(count(tokenizer, {"messages": [USER, ANSWER | {"reasoning_content": "be kind"}]})) == []


def test_a_stop_token_may_be_in_any_file_of_the_model(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("<|end|>", "<|pad|>")
    assert kinds(count(load(tmp_path / "a", template), {"messages": [USER, ANSWER]})) == ["stop"]
    assert kinds(count(load(tmp_path / "b", template, eos_token_id=[0, 1]), {"messages": [USER, ANSWER]})) == []
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert kinds(count(load(tmp_path / "c", template), {"messages": [USER, ANSWER]})) == []
