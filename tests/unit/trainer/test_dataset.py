"""A whole data source: its rows counted, its mistakes named by place, its examples written, split and compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finetune_api.data import Format
from finetune_api.reports import ExitCode
from finetune_trainer.dataset import (
    Measured,
    Survey,
    check_survey,
    choose_heldout,
    count_duplicates,
    find_format,
    find_leaks,
    read_examples,
    survey,
    write_parts,
)
from finetune_trainer.failures import StageError
from finetune_trainer.formats import Example
from finetune_trainer.messages import RowError
from hypothesis import given
from hypothesis import strategies as st

ANSWER = {"role": "assistant", "content": "good day"}
URI = "pvc://data/train.jsonl"


def chat(question: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": str(question)}, ANSWER]}


def lines(rows: list[Any]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def count_words(examples: list[Example]) -> list[Measured]:
    """Stands in for the tokenizer: a token a word, and what says `endless` is too long."""
    return [
        Measured(len(text.split()), RowError("truncated", "too long") if "endless" in text else None)
        for text in map(json.dumps, examples)
    ]


def look(directory: Path, *files: list[Any], wanted: Format | None = None, uri: str = URI) -> Survey:
    """Survey files that hold these rows."""
    directory.mkdir(exist_ok=True)
    paths = []
    for number, rows in enumerate(files, 1):
        paths.append(directory / f"part-{number}.jsonl")
        paths[-1].write_bytes(lines(rows))
    return survey(uri, paths, wanted or find_format(uri, paths), count_words, directory / "out" / "all.jsonl")


def test_wrong_rows_are_counted_and_named_with_their_places(tmp_path: Path) -> None:
    found = look(
        tmp_path, [b"\xef\xbb\xbf" + json.dumps(chat(1)).encode(), b"", *[b"bad"] * 9, chat("endless"), chat(2)]
    )
    assert (found.read, found.wrong, list(found.numbers)) == (12, 10, [1, 13])
    assert found.counts == {"json": 9, "truncated": 1}
    with pytest.raises(StageError) as error:
        check_survey(found)
    assert str(error.value).startswith(f"{URI}: 10 of 12 lines are wrong: line 3: not JSON")
    assert str(error.value).endswith("and 5 more")
    assert error.value.code == ExitCode.BAD_DATA


def test_of_each_kind_of_mistake_a_hundred_are_listed(tmp_path: Path) -> None:
    found = look(tmp_path, [chat(0), *[b"bad"] * 150, *[{"messages": []}] * 120])
    assert found.counts == {"json": 150, "messages": 120}
    assert {kind: len(listed) for kind, listed in found.problems.items()} == {"json": 100, "messages": 100}


def test_with_several_files_the_place_names_the_file(tmp_path: Path) -> None:
    found = look(tmp_path, [chat(1)], [chat(2), b"bad", chat(3)])
    assert found.problems == {"json": [("part-2.jsonl line 2", "not JSON: Expecting value (column 1)")]}
    assert [found.place_of(index) for index in range(3)] == [
        "part-1.jsonl line 1",
        "part-2.jsonl line 1",
        "part-2.jsonl line 3",
    ]


def test_the_first_row_tells_the_format_and_the_others_must_have_it(tmp_path: Path) -> None:
    found = look(tmp_path, [{"text": "one", "id": 1}, chat(2), {"text": "three"}])
    assert (found.format, found.ignored) == ("Text", {"id": 1, "messages": 1})
    assert found.problems == {"content": [("line 2", "text must be a text that is not empty")]}
    asked = look(tmp_path, [{"prompt": "a", "completion": "b", "text": "c"}], wanted="Text")
    assert list(read_examples(asked.path)) == [{"text": "c"}]


def test_the_first_row_that_can_be_read_tells_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([b"bad", {"question": "x"}]))
    (tmp_path / "b.jsonl").write_bytes(lines([chat(1)]))
    assert find_format(URI, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]) == "Chat"
    assert find_format(URI, [tmp_path / "a.jsonl"]) is None


def test_a_mistake_of_ours_is_not_called_bad_data(tmp_path: Path) -> None:
    def fail(_examples: list[Example]) -> list[Measured]:
        raise ValueError("a bug")

    (tmp_path / "a.jsonl").write_bytes(lines([chat(1)]))
    with pytest.raises(ValueError, match="a bug"):
        survey(URI, [tmp_path / "a.jsonl"], "Chat", fail, tmp_path / "out.jsonl")


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is empty"):
        check_survey(look(tmp_path, [b""]))


def test_a_file_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(StageError, match=r"pvc://data/train.jsonl: a.txt: the name must end in"):
        find_format(URI, [tmp_path / "a.txt"])


@given(st.lists(st.integers(0, 60), min_size=6, max_size=80), st.floats(0.01, 0.5), st.integers(0, 9))
def test_a_split_loses_nothing_and_leaks_nothing(
    tmp_path_factory: pytest.TempPathFactory, questions: list[int], fraction: float, seed: int
) -> None:
    directory = tmp_path_factory.mktemp("split")
    found = look(directory, [chat(question) for question in questions])
    if len(set(questions)) < 3:
        with pytest.raises(StageError, match="cannot be split"):
            choose_heldout(found, fraction, seed)
        return
    flags = choose_heldout(found, fraction, seed)
    assert np.array_equal(choose_heldout(found, fraction, seed), flags)
    write_parts(found, flags, directory / "train.jsonl", directory / "heldout.jsonl")
    train, heldout = (
        [json.dumps(one) for one in read_examples(directory / name)] for name in ("train.jsonl", "heldout.jsonl")
    )
    assert sorted(train + heldout) == sorted(json.dumps(chat(question)) for question in questions)
    assert not set(train) & set(heldout)
    assert train
    assert heldout
    assert not found.path.exists()


def test_a_leak_names_both_lines(tmp_path: Path) -> None:
    train = look(tmp_path / "train", [chat("a"), chat("b")], uri="train")
    heldout = look(tmp_path / "heldout", [chat("c"), chat("b")], uri="heldout")
    find_leaks(train, heldout)
    assert heldout.problems == {"leak": [("line 2", "the same question is in train line 2: it proves nothing")]}


def test_what_stands_twice_is_counted(tmp_path: Path) -> None:
    assert count_duplicates(look(tmp_path, [chat(1), chat(1), chat(2), chat(1)])) == 2


def test_examples_have_arguments_as_objects(tmp_path: Path) -> None:
    function = {"name": "find", "arguments": '{"id": 1}'}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    answer = {"role": "tool", "content": "x", "tool_call_id": "c"}
    tools = [{"type": "function", "function": {"name": "find"}}]
    found = look(tmp_path, [{"messages": [call, answer, ANSWER], "tools": tools}])
    (example,) = read_examples(found.path)
    assert example["messages"][0]["tool_calls"][0]["function"]["arguments"] == {"id": 1}
    with pytest.raises(StageError, match="is missing"):
        list(read_examples(tmp_path / "none.jsonl"))
