"""Rows in the shapes of public datasets, written after their documentation, become examples."""

import json
from typing import Any

import pytest
from finetune_api.training import Method
from finetune_trainer.prepare.row_issues import RowError
from finetune_trainer.prepare.row_reader import ReadRow, RowReader
from unit.scans import METHODS

ASK = {"role": "user", "content": "q"}
SAY = {"role": "assistant", "content": "a"}
OTHER = {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}
FIND = {
    "name": "find",
    "description": "find a book",
    "parameters": {"type": "object", "properties": {"title": {"type": "string"}}},
}
TOOL = {"type": "function", "function": FIND}
CALL = {"id": "call_0_0", "type": "function", "function": {"name": "find", "arguments": {"title": "Emma"}}}


def read(row: dict[str, Any], method: str = "sft", **columns: str) -> ReadRow:
    reader = RowReader(Method.model_validate(METHODS[method]), columns=columns)
    return reader.read(row, reader.detect_format(row))


@pytest.mark.parametrize(
    ("row", "method", "columns", "example"),
    [
        pytest.param(
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            "sft",
            {},
            {"messages": [ASK, SAY]},
            id="sharegpt",
        ),
        pytest.param(
            {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}}
            | {"rejected": {"from": "gpt", "value": "b"}},
            "dpo",
            {},
            {"prompt": [ASK], "chosen": [SAY], "rejected": [OTHER]},
            id="sharegpt-preference",
        ),
        pytest.param(
            {"messages": [ASK, SAY], "label": True},
            "kto",
            {},
            {"prompt": [ASK], "completion": [SAY], "label": True},
            id="kto-messages",
        ),
        pytest.param(
            {"question": "q", "answer": "a", "category": "hours"},
            "sft",
            {"prompt": "question", "completion": "answer"},
            {"messages": [ASK, SAY]},
            id="other-columns",
        ),
        pytest.param(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "value": "q"}], "loss_weight": 0.0},
                    {"role": "assistant", "content": [{"type": "text", "value": "a"}], "loss_weight": 1.0},
                ]
            },
            "sft",
            {},
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "q"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "a"}], "weight": 1.0},
                ]
            },
            id="text-parts-with-value",
        ),
        pytest.param(
            {
                "id": 1,
                "query": "q",
                "tools": json.dumps([FIND]),
                "answers": '[{"name": "find", "arguments": {"title": "Emma"}}]',
            },
            "sft",
            {"prompt": "query", "completion": "answers"},
            {
                "messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
                "tools": [TOOL],
            },
            id="xlam",
        ),
        pytest.param(
            {
                "conversations": [
                    {"from": "human", "value": "q", "weight": None},
                    {"from": "gpt", "value": "a", "weight": None},
                ]
            }
            | {"source": "x", "system_prompt": "s", "custom_instruction": None},
            "sft",
            {},
            {"messages": [SYSTEM, ASK, SAY]},
            id="openhermes",
        ),
        pytest.param(
            {"prompt": "q", "prompt_id": "1", "messages": [ASK, SAY]},
            "sft",
            {},
            {"messages": [ASK, SAY]},
            id="ultrachat",
        ),
        pytest.param(
            {
                "prompt": "q",
                "chosen": [ASK, SAY],
                "rejected": [ASK, OTHER],
                "messages": [ASK, SAY],
                "score_chosen": 8.0,
            },
            "dpo",
            {},
            {"prompt": [ASK], "chosen": [SAY], "rejected": [OTHER]},
            id="ultrafeedback",
        ),
        pytest.param(
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
            "dpo",
            {},
            {"prompt": [ASK], "chosen": [SAY], "rejected": [OTHER]},
            id="hh-rlhf",
        ),
        pytest.param(
            {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
            "dpo",
            {"prompt": "question"},
            {"prompt": [SYSTEM, ASK], "chosen": [SAY], "rejected": [OTHER]},
            id="orca-dpo",
        ),
        pytest.param(
            {"question": "q", "answer": "6 / 2 = 3\n#### 3"},
            "grpo",
            {"prompt": "question"},
            {"prompt": [ASK], "reference": {"answer": "6 / 2 = 3\n#### 3"}},
            id="gsm8k",
        ),
        pytest.param(
            {"instruction": "q", "context": "", "response": "a", "category": "x"},
            "sft",
            {"input": "context", "output": "response"},
            {"messages": [ASK, SAY]},
            id="dolly",
        ),
        pytest.param(
            {"text": "### Human: q### Assistant: a"}, "sft", {}, {"text": "### Human: q### Assistant: a"}, id="oasst"
        ),
        pytest.param(
            {"id": "x", "messages": [ASK, SAY], "source": "y"}, "sft", {}, {"messages": [ASK, SAY]}, id="tulu-3"
        ),
    ],
)
def test_rows_of_public_datasets(
    row: dict[str, Any], method: str, columns: dict[str, str], example: dict[str, Any]
) -> None:
    assert read(row, method, **columns).examples == [example]


def test_sharegpt_with_tools_is_read_with_its_calls() -> None:
    row = {
        "system": "You are a librarian.",
        "tools": json.dumps([FIND]),
        "conversations": [
            {"from": "human", "value": "Do you have Emma?"},
            {"from": "function_call", "value": '{"name": "find", "arguments": {"title": "Emma"}}'},
            {"from": "observation", "value": "[2 copies]"},
            {"from": "gpt", "value": "Two copies are here."},
        ],
    }
    (example,) = read(row).examples
    assert example["tools"] == [TOOL]
    assert [message["role"] for message in example["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert example["messages"][2]["tool_calls"] == [CALL | {"id": "call_1_0"}]
    assert example["messages"][3] == {"role": "tool", "content": "[2 copies]", "tool_call_id": "call_1_0"}


def test_hermes_function_calling_is_read_with_its_calls() -> None:
    row = {
        "id": "x",
        "conversations": [
            {"from": "system", "value": "You call functions."},
            {"from": "human", "value": "Emma?"},
            {"from": "gpt", "value": '<tool_call>\n{"arguments": {"title": "Emma"}, "name": "find"}\n</tool_call>'},
            {"from": "tool", "value": '<tool_response>\n{"copies": 2}\n</tool_response>'},
            {"from": "gpt", "value": "Two."},
        ],
        "tools": json.dumps([TOOL]),
        "category": "books",
    }
    (example,) = read(row).examples
    assert example["messages"][2] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [CALL | {"id": "call_2_0"}],
    }
    assert example["messages"][3]["content"] == '{"copies": 2}'


def test_pythons_names_of_types_are_read_with_a_warning() -> None:
    parameters = {
        "type": "dict",
        "properties": {"lat": {"type": "float"}, "name": {"type": "str"}, "ids": {"type": "List[int]"}},
        "required": ["lat"],
    }
    tool = {"type": "function", "function": {"name": "near", "description": "d", "parameters": parameters}}
    row = read({"tools": [tool], "messages": [ASK, SAY]})
    (example,) = row.examples
    assert example["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "lat": {"type": "number"},
            "name": {"type": "string"},
            "ids": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["lat"],
    }
    assert [warning.kind for warning in row.warnings] == ["types"]
    assert not read({"tools": [TOOL], "messages": [ASK, SAY]}).warnings


def test_arguments_without_their_object_are_read() -> None:
    tool = {"name": "near", "description": "d", "parameters": {"lat": {"type": "float, optional", "description": "x"}}}
    (example,) = read({"tools": json.dumps([tool]), "messages": [ASK, SAY]}).examples
    assert example["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {"lat": {"type": "number", "description": "x"}},
    }


@pytest.mark.parametrize("field", ["images", "image", "audio", "videos"])
def test_rows_with_media_are_refused(field: str) -> None:
    row = {"messages": [{"role": "user", "content": "<image>Who?"}, SAY], field: ["cat.jpg"]}
    with pytest.raises(RowError, match=f"the row has {field}, but only text is learned"):
        read(row)
    assert read({"messages": [ASK, SAY], field: []}).examples


def test_a_conversation_without_an_answer_is_a_prompt_for_graders_only() -> None:
    row = {"messages": [ASK], "answer": "yes"}
    assert read(row, "grpo").examples == [{"prompt": [ASK], "reference": {"answer": "yes"}}]
    with pytest.raises(RowError, match="no message has the role assistant"):
        read(row)


def test_a_refusal_proposes_the_columns() -> None:
    with pytest.raises(RowError, match=r"set dataset.train.columns to \{prompt: question, completion: answer\}"):
        read({"question": "q", "answer": "a", "category": "hours"})


def test_a_weight_of_a_message_that_is_not_learned_is_refused() -> None:
    row = {"messages": [ASK | {"loss_weight": 1.0}, SAY]}
    with pytest.raises(RowError, match=r"messages\[0\].loss_weight is 1.0: only assistant messages are learned"):
        read(row)


def test_a_tool_in_the_shape_of_the_responses_api_is_read() -> None:
    (example,) = read({"messages": [ASK, SAY], "tools": [{"type": "function"} | FIND]}).examples
    assert example["tools"] == [TOOL]
