"""`columns` of a source, and its proposals."""

from typing import Any

import pytest
from finetune_trainer.prepare.columns import find_remedy, propose_columns, select_columns
from finetune_trainer.prepare.row_issues import RowError

ROW = {"question": "q", "a.b": "dot", "nested": {"list": [{"text": "deep"}]}, "source": "s"}


@pytest.mark.parametrize(
    ("columns", "selected"),
    [
        ({"prompt": "question"}, {"prompt": "q", "a.b": "dot", "nested": ROW["nested"], "source": "s"}),
        ({"completion": "nested.list.0.text"}, {"question": "q", "a.b": "dot", "completion": "deep", "source": "s"}),
        ({"text": "a.b"}, {**ROW, "text": "dot"}),
    ],
)
def test_a_field_is_read_from_a_column(columns: dict[str, str], selected: dict[str, Any]) -> None:
    row = select_columns(ROW, columns, "dataset.train")
    assert {name: value for name, value in row.items() if name in selected} == selected


@pytest.mark.parametrize("path", ["missing", "nested.missing", "nested.list.5", "nested.list.x", "question.x"])
def test_a_path_that_leads_nowhere_is_named(path: str) -> None:
    with pytest.raises(RowError, match=rf"dataset.mix\[1\].columns.prompt is {path}, but the row has no "):
        select_columns(ROW, {"prompt": path}, "dataset.mix[1]")


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("question", "answer", "category"), {"prompt": "question", "completion": "answer"}),
        (("Question", "Answer"), {"prompt": "Question", "completion": "Answer"}),
        (("prompt", "response"), {"completion": "response"}),
        (("question", "chosen", "rejected"), {"prompt": "question"}),
        (("dialogue",), {"messages": "dialogue"}),
        (("document", "id"), {"text": "document"}),
        (("a", "b"), {}),
    ],
)
def test_columns_are_proposed_for_names_of_public_data(names: tuple[str, ...], columns: dict[str, str]) -> None:
    assert propose_columns(dict.fromkeys(names, "x")) == columns


def test_a_list_of_rows_in_a_field_is_named() -> None:
    assert "the list in data" in find_remedy({"version": 1, "data": [{"text": "x"}]}, "dataset.train")
    assert not find_remedy({"a": [{}], "b": [{}]}, "dataset.train")
    assert not find_remedy({"a": []}, "dataset.train")
