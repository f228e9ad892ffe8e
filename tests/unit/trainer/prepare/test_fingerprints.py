"""Which examples contradict each other."""

from pathlib import Path
from typing import Any

import pytest
from finetune_trainer.prepare.split import warn_of_repeats
from unit.surveys import OTHER, chat, look


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("sft", [chat(1), {"messages": [chat(1)["messages"][0], OTHER]}]),
        ("dpo", [{"prompt": "x", "chosen": "a", "rejected": "b"}, {"prompt": "x", "chosen": "b", "rejected": "a"}]),
        ("kto", [{"prompt": "x", "completion": "a", "label": label} for label in (True, False)]),
        ("grpo", [{"prompt": "x", "answer": answer} for answer in "ab"]),
    ],
)
def test_what_contradicts_is_named(tmp_path: Path, method: str, rows: list[Any]) -> None:
    found = look(tmp_path, rows, method=method)
    assert warn_of_repeats(found) == 0
    assert found.warnings.listed["contradiction"] == [
        ("line 2", "answers what line 1 asks in another way: keep the better one")
    ]


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("sft", [{"messages": [{"role": "system", "content": who}, *chat(1)["messages"]]} for who in "ab"]),
        ("dpo", [{"prompt": "x", "chosen": "a", "rejected": other} for other in "bc"]),
        (
            "kto",
            [{"prompt": "x", "completion": "a", "label": True}, {"prompt": "x", "completion": "b", "label": False}],
        ),
    ],
)
def test_what_only_looks_alike_is_no_contradiction(tmp_path: Path, method: str, rows: list[Any]) -> None:
    found = look(tmp_path, rows, method=method)
    warn_of_repeats(found)
    assert "contradiction" not in found.warnings.counts
