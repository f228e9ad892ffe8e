"""The example's data is what its script writes, and passes every check of the trainer."""

import runpy
from pathlib import Path

import pytest
from finetune_trainer.prepare.dataset import Survey, survey
from finetune_trainer.prepare.measure import Measured
from finetune_trainer.prepare.split import check_survey, find_leaks, warn_of_repeats
from finetune_trainer.prepared import read_examples

EXAMPLE = Path(__file__).parents[3] / "examples" / "support-bot"


def look(name: str, directory: Path) -> Survey:
    measured = Measured(1, 1, 1)
    files = [EXAMPLE / name]
    return survey(name, files, "Chat", lambda one: [one], lambda examples: [measured] * len(examples), directory / name)


def test_the_script_writes_what_is_committed() -> None:
    script = runpy.run_path(str(EXAMPLE / "make_data.py"))
    train = script["build_conversations"](heldout=False, seed=1)
    heldout = script["build_conversations"](heldout=True, seed=2)[:45]
    assert script["render_file"](train) == (EXAMPLE / "train.jsonl").read_text()
    assert script["render_file"](heldout) == (EXAMPLE / "heldout.jsonl").read_text()


@pytest.mark.parametrize(("name", "count"), [("train.jsonl", 300), ("heldout.jsonl", 45)])
def test_every_line_is_right_and_different(name: str, count: int, tmp_path: Path) -> None:
    found = look(name, tmp_path)
    check_survey(found)
    assert (found.format, len(found.numbers), warn_of_repeats(found)) == ("Chat", count, 0)


def test_some_conversations_call_tools(tmp_path: Path) -> None:
    calling = [one for one in read_examples(look("train.jsonl", tmp_path).path) if "tools" in one]
    assert len(calling) == 50
    assert calling[0]["messages"][2]["tool_calls"][0]["function"]["arguments"]["order"].startswith("N")


def test_no_held_out_question_is_trained_on(tmp_path: Path) -> None:
    heldout = look("heldout.jsonl", tmp_path)
    find_leaks(look("train.jsonl", tmp_path), heldout)
    check_survey(heldout)
