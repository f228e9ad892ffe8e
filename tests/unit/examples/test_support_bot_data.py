"""The example's data is what its script writes, and passes every check of the trainer."""

import json
import runpy
from pathlib import Path

import pytest
from finetune_trainer.dataset import DataFile, check_files, find_leaks, question_of, read_file

EXAMPLE = Path(__file__).parents[3] / "examples" / "support-bot"


def read(name: str) -> DataFile:
    return read_file(EXAMPLE / name, name)


def test_the_script_writes_what_is_committed() -> None:
    script = runpy.run_path(str(EXAMPLE / "make_data.py"))
    train = script["build_conversations"](heldout=False, seed=1)
    heldout = script["build_conversations"](heldout=True, seed=2)[:45]
    assert script["render_file"](train) == (EXAMPLE / "train.jsonl").read_text()
    assert script["render_file"](heldout) == (EXAMPLE / "heldout.jsonl").read_text()


@pytest.mark.parametrize(("name", "count"), [("train.jsonl", 300), ("heldout.jsonl", 45)])
def test_every_line_is_right_and_different(name: str, count: int) -> None:
    data = read(name)
    check_files([data])
    assert len({question_of(one) for one in data.conversations}) == len(data.conversations) == count


def test_some_conversations_call_tools() -> None:
    calling = [one for one in read("train.jsonl").conversations if "tools" in one]
    assert len(calling) == 50
    assert json.loads(calling[0]["messages"][2]["tool_calls"][0]["function"]["arguments"])["order"].startswith("N")


def test_no_held_out_question_is_trained_on() -> None:
    heldout = read("heldout.jsonl")
    find_leaks(read("train.jsonl"), heldout)
    check_files([heldout])
