"""The examples that the methods train on."""

from pathlib import Path
from typing import Any

import pytest
from finetune_api.training import Method, Sft
from finetune_trainer.prepare.conversions import convert_example
from finetune_trainer.prepare.row_issues import RowError
from finetune_trainer.prepared import read_examples
from unit.scans import ANSWER, OTHER, chat, scan


def test_kto_converts_a_preference_into_two_examples_of_one_line(tmp_path: Path) -> None:
    source = scan(tmp_path, [{"prompt": "x", "chosen": "a", "rejected": "b"}], method="kto")
    assert [(example["completion"][0]["content"], example["label"]) for example in read_examples(source.path)] == [
        ("a", True),
        ("b", False),
    ]
    assert (source.rows, list(source.row_numbers), len(set(source.prompt_hashes))) == (1, [1, 1], 1)


def test_grpo_uses_the_last_answer_as_reference(tmp_path: Path) -> None:
    turns = [*chat(1)["messages"], {"role": "user", "content": "and now?"}, OTHER]
    source = scan(tmp_path, [{"messages": turns}, {"messages": [ANSWER, turns[0]]}], method="grpo")
    assert list(read_examples(source.path)) == [{"prompt": turns[:3], "reference": {"answer": "go away"}}]
    assert source.errors.counts == {"user": 1}


def test_reasoning_is_stripped_from_the_assistants_messages() -> None:
    """Wherever it is: in a field, in a block of the content, in a text part, beside a tool call."""
    call = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "user", "content": "<think>mine</think>"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
        {"role": "assistant", "reasoning_content": "hm", "content": [{"type": "text", "text": "yes"}]},
        {"role": "assistant", "reasoning": "hm", "content": None, "tool_calls": call},
        {"role": "assistant", "content": "yes"},
    ]
    example = {"messages": messages, "tools": None}
    assert convert_example(Method(sft=Sft()), example) == [example]
    (stripped,) = convert_example(Method(sft=Sft()), example, strips_reasoning=True)
    assert stripped == {
        "messages": [
            messages[0],
            {"role": "assistant", "content": "yes"},
            {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
            {"role": "assistant", "content": None, "tool_calls": call},
            messages[4],
        ],
        "tools": None,
    }


@pytest.mark.parametrize(
    ("example", "problem"),
    [
        (
            {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<think>hm</think>"}]},
            r"messages\[1\] is only reasoning",
        ),
        (
            {
                "prompt": [{"role": "user", "content": "?"}],
                "chosen": [{"role": "assistant", "content": "<think>a</think>yes"}],
                "rejected": [{"role": "assistant", "content": "<think>b</think>yes"}],
            },
            "differ in their reasoning only",
        ),
    ],
)
def test_an_example_of_which_nothing_is_left_is_refused(example: dict[str, Any], problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        convert_example(Method(sft=Sft()), example, strips_reasoning=True)
