"""The example's data equals the output of its script and passes every check of the trainer."""

import runpy
from pathlib import Path

import pytest
from finetune_api.training import Method, Sft
from finetune_trainer.prepare.data_quality import check_rows, find_contamination, warn_about_duplicates
from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.row_reader import RowReader
from finetune_trainer.prepare.scan import SourceScan, scan_source
from finetune_trainer.prepare.token_counts import SampleCounts, TokenCounts
from finetune_trainer.prepared import read_examples
from unit.scans import mix

EXAMPLE = Path(__file__).parents[3] / "examples" / "support-bot"


URI = "configmap://support-bot-data/"


def scan(name: str, directory: Path) -> SourceScan:
    def count(examples: list[Example]) -> list[TokenCounts]:
        return [TokenCounts((SampleCounts(1, 1),), 1)] * len(examples)

    return scan_source(URI + name, [EXAMPLE / name], "Chat", RowReader(Method(sft=Sft())), count, directory / name)


def test_the_script_writes_the_committed_files() -> None:
    script = runpy.run_path(str(EXAMPLE / "make_data.py"))
    train = script["build_conversations"](heldout=False, seed=1)
    heldout = script["build_conversations"](heldout=True, seed=2)[:45]
    assert script["render_file"](train) == (EXAMPLE / "train.jsonl").read_text()
    assert script["render_file"](heldout) == (EXAMPLE / "heldout.jsonl").read_text()


@pytest.mark.parametrize(("name", "count"), [("train.jsonl", 300), ("heldout.jsonl", 45)])
def test_every_line_is_valid_and_unique(name: str, count: int, tmp_path: Path) -> None:
    source = scan(name, tmp_path)
    check_rows(source)
    assert (source.format, len(source.row_numbers), warn_about_duplicates(mix(source))) == ("Chat", count, 0)


def test_some_conversations_call_tools(tmp_path: Path) -> None:
    calling = [example for example in read_examples(scan("train.jsonl", tmp_path).path) if "tools" in example]
    assert len(calling) == 50
    assert calling[0]["messages"][2]["tool_calls"][0]["function"]["arguments"]["order"].startswith("N")


def test_no_held_out_question_is_trained_on(tmp_path: Path) -> None:
    heldout = scan("heldout.jsonl", tmp_path)
    find_contamination(mix(scan("train.jsonl", tmp_path)), heldout)
    check_rows(heldout)
