"""The examples that KTO and GRPO train on."""

from pathlib import Path

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
