"""Which examples contradict each other."""

from pathlib import Path
from typing import Any

import pytest
from finetune_trainer.prepare.data_quality import warn_about_duplicates
from unit.scans import OTHER, chat, mix, scan


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("sft", [chat(1), {"messages": [chat(1)["messages"][0], OTHER]}]),
        ("dpo", [{"prompt": "x", "chosen": "a", "rejected": "b"}, {"prompt": "x", "chosen": "b", "rejected": "a"}]),
        ("kto", [{"prompt": "x", "completion": "a", "label": label} for label in (True, False)]),
        ("grpo", [{"prompt": "x", "answer": answer} for answer in "ab"]),
    ],
)
def test_contradictions_are_named(tmp_path: Path, method: str, rows: list[Any]) -> None:
    source = scan(tmp_path, rows, method=method)
    assert warn_about_duplicates(mix(source)) == 0
    assert source.warnings.listed["contradiction"] == [
        ("line 2", "contradicts line 1, which differs only in its answer or label: keep the better one")
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
def test_similar_examples_do_not_contradict_each_other(tmp_path: Path, method: str, rows: list[Any]) -> None:
    source = scan(tmp_path, rows, method=method)
    warn_about_duplicates(mix(source))
    assert "contradiction" not in source.warnings.counts
