"""What KTO and GRPO learn from."""

from pathlib import Path

from finetune_trainer.prepared import read_examples
from unit.surveys import ANSWER, OTHER, chat, look


def test_for_kto_a_preference_is_two_examples_of_one_line(tmp_path: Path) -> None:
    found = look(tmp_path, [{"prompt": "x", "chosen": "a", "rejected": "b"}], method="kto")
    assert [(one["completion"][0]["content"], one["label"]) for one in read_examples(found.path)] == [
        ("a", True),
        ("b", False),
    ]
    assert (found.read, list(found.numbers), len(set(found.questions))) == (1, [1, 1], 1)


def test_for_grpo_the_last_answer_is_the_reference(tmp_path: Path) -> None:
    turns = [*chat(1)["messages"], {"role": "user", "content": "and now?"}, OTHER]
    found = look(tmp_path, [{"messages": turns}, {"messages": [ANSWER, turns[0]]}], method="grpo")
    assert list(read_examples(found.path)) == [{"prompt": turns[:3], "reference": {"answer": "go away"}}]
    assert found.errors.counts == {"user": 1}
