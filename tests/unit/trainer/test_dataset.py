"""A whole data source: its rows counted, its mistakes named by place, its examples written, split and compared."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finetune_api.data import Format
from finetune_api.reports import ExitCode
from finetune_api.training import Method
from finetune_trainer.conversions import convert_example
from finetune_trainer.dataset import Survey, find_format, survey
from finetune_trainer.failures import StageError
from finetune_trainer.findings import RowError, Warned
from finetune_trainer.formats import Example
from finetune_trainer.measure import Measured
from finetune_trainer.prepared import read_examples
from finetune_trainer.splits import (
    check_survey,
    choose_heldout,
    find_leaks,
    warn_of_labels,
    warn_of_repeats,
    write_parts,
)
from hypothesis import given
from hypothesis import strategies as st

ANSWER = {"role": "assistant", "content": "good day"}
URI = "pvc://data/train.jsonl"


METHODS: dict[str, dict[str, Any]] = {
    **{name: {name: {}} for name in ("sft", "dpo", "kto")},
    "grpo": {"grpo": {"graders": [{"name": "right", "stringCheck": {}}]}},
}


def chat(question: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": str(question)}, ANSWER]}


def lines(rows: list[Any]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def count_words(examples: list[Example]) -> list[Measured]:
    """Stands in for the tokenizer: a token a word, and what says `endless` is too long."""
    measured = []
    for text in map(json.dumps, examples):
        count = len(text.split())
        problem = RowError("truncated", "too long") if "endless" in text else None
        measured.append(Measured(count, count, count, problem, (Warned("odd", "odd"),) * ("odd" in text)))
    return measured


def look(
    directory: Path, *files: list[Any], wanted: Format | None = None, uri: str = URI, method: str = "sft"
) -> Survey:
    """Survey files that hold these rows."""
    directory.mkdir(exist_ok=True)
    paths = []
    for number, rows in enumerate(files, 1):
        paths.append(directory / f"part-{number}.jsonl")
        paths[-1].write_bytes(lines(rows))
    name = wanted or find_format(uri, paths)
    convert = partial(convert_example, Method.model_validate(METHODS[method]))
    return survey(uri, paths, name, convert, count_words, directory / "out" / "all.jsonl")


def test_wrong_rows_are_counted_and_named_with_their_places(tmp_path: Path) -> None:
    found = look(
        tmp_path, [b"\xef\xbb\xbf" + json.dumps(chat(1)).encode(), b"", *[b"bad"] * 9, chat("endless"), chat(2)]
    )
    assert (found.read, found.wrong, list(found.numbers)) == (12, 10, [1, 13])
    assert found.errors.counts == {"json": 9, "truncated": 1}
    with pytest.raises(StageError) as error:
        check_survey(found)
    assert str(error.value).startswith(f"{URI}: 10 of 12 lines are wrong: line 3: not JSON")
    assert str(error.value).endswith("and 5 more")
    assert error.value.code == ExitCode.BAD_DATA


def test_of_each_kind_of_mistake_a_hundred_are_listed(tmp_path: Path) -> None:
    found = look(tmp_path, [chat(0), *[b"bad"] * 150, *[{"messages": []}] * 120])
    assert found.errors.counts == {"json": 150, "messages": 120}
    assert {kind: len(listed) for kind, listed in found.errors.listed.items()} == {"json": 100, "messages": 100}


def test_with_several_files_the_place_names_the_file(tmp_path: Path) -> None:
    found = look(tmp_path, [chat(1)], [chat(2), b"bad", chat(3)])
    ((place, message),) = found.errors.listed["json"]
    assert place == "part-2.jsonl line 2"
    assert message == "not JSON: Expecting value (column 1): write one object on each line"
    assert [found.place_of(index) for index in range(3)] == [
        "part-1.jsonl line 1",
        "part-2.jsonl line 1",
        "part-2.jsonl line 3",
    ]


def test_the_first_row_tells_the_format_and_the_others_must_have_it(tmp_path: Path) -> None:
    found = look(tmp_path, [{"text": "one", "id": 1}, chat(2), {"text": "three"}])
    assert (found.format, found.ignored) == ("Text", {"id": 1})
    ((place, message),) = found.errors.listed["format"]
    assert place == "line 2"
    assert message.startswith("the fields messages are those of Chat, the data is taken for Text: give rows of one")
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
        survey(URI, [tmp_path / "a.jsonl"], "Chat", lambda example: [example], fail, tmp_path / "out.jsonl")


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
    ((place, message),) = heldout.errors.listed["leak"]
    assert (place, heldout.wrong) == ("line 2", 1)
    assert message.startswith("the same question is in train line 2: it proves nothing")


def test_what_stands_twice_is_counted_and_named(tmp_path: Path) -> None:
    found = look(tmp_path, [chat(1), chat(1), chat(2), chat(1)])
    assert warn_of_repeats(found) == 2
    assert [place for place, _ in found.warnings.listed["duplicate"]] == ["line 2", "line 4"]
    assert found.warnings.listed["duplicate"][1][1].startswith("the same as line 1: ")
    assert "contradiction" not in found.warnings.counts


OTHER = {"role": "assistant", "content": "go away"}


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


def test_warnings_of_rows_stop_nothing(tmp_path: Path) -> None:
    found = look(tmp_path, [chat("odd"), chat(1)])
    assert found.warnings.listed["odd"] == [("line 1", "odd")]
    assert found.warnings.counts == {"odd": 1, "system": 2}
    check_survey(found)


@pytest.mark.parametrize(("good", "warned"), [(18, False), (19, True), (20, True)])
def test_a_label_that_hardly_stands_is_warned_of(tmp_path: Path, good: int, warned: bool) -> None:
    rows = [{"prompt": f"{number}", "completion": "x", "label": number < good} for number in range(20)]
    found = look(tmp_path, rows, method="kto")
    warn_of_labels(found)
    assert ("labels" in found.warnings.counts) == warned


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


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (b'{"text": "\\ud800"}', "encoding", "half of a character (\\ud800) stands alone"),
        (b'{"text": "x", "text": "y"}', "json", "the field 'text' stands twice in an object: keep one"),
        (b'{"text": NaN}', "json", "JSON has no NaN"),
        (b'{"prompt": "x", "answer": ' + b"[" * 950 + b"]" * 950 + b"}", "json", "nested too deeply"),
        (b'{"prompt": "x", "answer": 1e999}', "value", "answer is not a number (NaN, Infinity): leave it out"),
        (b'{"text": ' + b"1" * 5000 + b"}", "json", "a number of so many digits, write it as a text"),
    ],
)
def test_what_cannot_be_written_again_is_refused(tmp_path: Path, row: bytes, kind: str, message: str) -> None:
    is_prompt = b"prompt" in row
    found = look(tmp_path, [row], wanted="Prompt" if is_prompt else "Text", method="grpo" if is_prompt else "sft")
    assert message in found.errors.listed[kind][0][1]


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
