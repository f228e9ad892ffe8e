"""What the rows of a data file mean: which format they have, and the one shape that training reads. Pure.

Shapes, by the format:
    Chat, PromptCompletion, Instruction   {"messages": [...], "tools": [...]}
    Text                                  {"text": "..."}
    Preference                            {"prompt": [...], "chosen": [...], "rejected": [...]}
    UnpairedPreference                    {"prompt": [...], "completion": [...], "label": true}
    Prompt                                {"prompt": [...], "reference": {every other field}}

All but Text have `"tools": [...]` where tools were declared.
"""

import json
from collections.abc import Callable
from typing import Any

from finetune_api.data import Format

from finetune_trainer.prepare.messages import Message, check_messages
from finetune_trainer.prepare.normalize import rewrite_messages, rewrite_tools
from finetune_trainer.prepare.row_issues import RowError, kind_of, show
from finetune_trainer.prepare.tools import Schemas, check_tools

Example = dict[str, Any]

# By the fields that tell a format apart; the first that fits is taken, so the order matters.
_SIGNS: tuple[tuple[Format, frozenset[str]], ...] = (
    ("Chat", frozenset({"messages"})),
    ("Preference", frozenset({"chosen", "rejected"})),
    ("Preference", frozenset({"preferred_output", "non_preferred_output"})),
    ("UnpairedPreference", frozenset({"prompt", "completion", "label"})),
    ("PromptCompletion", frozenset({"prompt", "completion"})),
    ("Instruction", frozenset({"instruction", "output"})),
    ("Text", frozenset({"text"})),
    ("Prompt", frozenset({"prompt"})),
)
_KNOWN: dict[Format, frozenset[str]] = {
    "Chat": frozenset({"messages", "tools", "functions", "parallel_tool_calls"}),
    "PromptCompletion": frozenset({"prompt", "completion", "tools"}),
    "Instruction": frozenset({"instruction", "input", "output", "system"}),
    "Text": frozenset({"text"}),
    "Preference": frozenset(
        {"prompt", "chosen", "rejected", "tools", "input", "preferred_output", "non_preferred_output"}
    ),
    "UnpairedPreference": frozenset({"prompt", "completion", "label", "tools"}),
}

_SHOWN = 8
"""Fields that a message names."""


def detect_format(row: dict[str, Any]) -> Format:
    """Return the format of a row by its fields.

    Raises:
        RowError: it has the fields of none; the message says which there are.
    """
    for name, signs in _SIGNS:
        if signs <= row.keys():
            return name
    wanted = "; ".join(f"{name}: {', '.join(sorted(signs))}" for name, signs in _SIGNS)
    raise RowError(
        "format", f"the fields {name_fields(row)} are those of no format: name them like those of one ({wanted})"
    )


def name_fields(row: dict[str, Any]) -> str:
    """Return the names of a row's fields, the first of them where there are many."""
    names = sorted(row)
    shown = [name[:30] for name in names[:_SHOWN]]
    return ", ".join(shown + [f"{len(names) - _SHOWN} more"] * (len(names) > _SHOWN)) or "(none)"


def check_format(row: dict[str, Any], name: Format) -> None:
    """Refuse a row that is of another format than the others.

    Raises:
        RowError: it is; the message says which.
    """
    if not any(signs <= row.keys() for one, signs in _SIGNS if one == name):
        other = detect_format(row)
        raise RowError(
            "format",
            f"the fields {name_fields(row)} are those of {other}, the data is taken for {name}:"
            " give rows of one format, or set dataset.format",
        )


def unknown_fields(row: dict[str, Any], name: Format) -> set[str]:
    """Return the fields that are passed over; those of a Prompt are kept for the graders."""
    return set(row.keys() - _KNOWN[name]) if name in _KNOWN else set()


def parse_row(row: dict[str, Any], name: Format) -> Example:
    """Return a row in the shape that training reads.

    Raises:
        RowError: the first thing that is wrong with it.
    """
    return _PARSERS[name](row)


def _parse_chat(row: dict[str, Any]) -> Example:
    tools, schemas = _tools(row)
    messages = rewrite_messages(_decode(row, "messages"), "messages")
    check_messages(messages, schemas, "messages")
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError("assistant", "no message of role assistant: there is nothing to learn, add the answer")
    if all(message.get("weight") == 0 for message in answers):
        raise RowError("weight", "every message of the assistant has weight 0: there is nothing to learn, give one 1")
    most = max(len(message.get("tool_calls", ())) for message in answers)
    if row.get("parallel_tool_calls") is False and most > 1:
        raise RowError(
            "tool_calls", f"parallel_tool_calls is false, and a message makes {most} calls: give each its own message"
        )
    return {"messages": messages} | tools


def _parse_prompt_completion(row: dict[str, Any]) -> Example:
    tools, schemas = _tools(row)
    prompt, completion = _turns(row, "prompt", "user"), _turns(row, "completion", "assistant")
    check_messages(prompt, schemas, "prompt")
    _check_answer(completion, schemas, "completion")
    return {"messages": [*prompt, *completion]} | tools


def _parse_instruction(row: dict[str, Any]) -> Example:
    instruction, output = _text(row, "instruction"), _text(row, "output")
    more = row.get("input") or ""
    if not isinstance(more, str):
        raise RowError("content", "input must be a text, or left out")
    question = f"{instruction}\n\n{more}" if more.strip() else instruction
    messages: list[Message] = [{"role": "user", "content": question}, {"role": "assistant", "content": output}]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": _text(row, "system")})
    return {"messages": messages}


def _parse_text(row: dict[str, Any]) -> Example:
    return {"text": _text(row, "text")}


def _parse_preference(row: dict[str, Any]) -> Example:
    if "preferred_output" in row:
        given = _decode(row, "input")
        if not isinstance(given, dict):
            raise RowError("messages", 'input is not {"messages": [...]}: write the conversation so')
        tools, schemas = _tools(given)
        names = ("input.messages", "preferred_output", "non_preferred_output")
        prompt = rewrite_messages(given.get("messages"), names[0])
        chosen, rejected = (rewrite_messages(_decode(row, name), name) for name in names[1:])
    else:
        tools, schemas = _tools(row)
        names = ("prompt", "chosen", "rejected")
        chosen, rejected = _turns(row, "chosen", "assistant"), _turns(row, "rejected", "assistant")
        prompt, chosen, rejected = _split_prompt(row, chosen, rejected)
    _check_prompt(prompt, schemas, names[0])
    for answer, where in ((chosen, names[1]), (rejected, names[2])):
        _check_answer(answer, schemas, where)
    if chosen == rejected:
        raise RowError(
            "equal", f"{names[1]} and {names[2]} are the same: there is nothing to prefer, leave the row out"
        )
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | tools


def _split_prompt(row: dict[str, Any], chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Take the prompt from its own field, or from what both conversations begin with."""
    if "prompt" in row:
        return _turns(row, "prompt", "user"), chosen, rejected
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise RowError(
            "messages", "there is no prompt: give one, or let chosen and rejected begin with the same messages"
        )
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _parse_unpaired(row: dict[str, Any]) -> Example:
    tools, schemas = _tools(row)
    prompt, completion = _turns(row, "prompt", "user"), _turns(row, "completion", "assistant")
    _check_prompt(prompt, schemas, "prompt")
    _check_answer(completion, schemas, "completion")
    label = {"true": True, "false": False}.get(row["label"].lower()) if isinstance(row["label"], str) else row["label"]
    if not isinstance(label, bool):
        raise RowError("label", f"label {show(row['label'])} is neither true nor false: write one of them")
    return {"prompt": prompt, "completion": completion, "label": label} | tools


def _parse_prompt(row: dict[str, Any]) -> Example:
    tools, schemas = _tools(row)
    prompt = _turns(row, "prompt", "user")
    _check_prompt(prompt, schemas, "prompt")
    reference = {key: value for key, value in row.items() if key not in ("prompt", "tools")}
    return {"prompt": prompt, "reference": reference} | tools


_PARSERS: dict[Format, Callable[[dict[str, Any]], Example]] = {
    "Chat": _parse_chat,
    "PromptCompletion": _parse_prompt_completion,
    "Instruction": _parse_instruction,
    "Text": _parse_text,
    "Preference": _parse_preference,
    "UnpairedPreference": _parse_unpaired,
    "Prompt": _parse_prompt,
}


def _tools(row: dict[str, Any]) -> tuple[Example, Schemas]:
    """Return the tools as they stand in an example, and what judges their calls."""
    tools = rewrite_tools(_decode(row, "tools"), row.get("functions"))
    schemas = check_tools(tools)
    return ({"tools": tools} if tools else {}), schemas


def _turns(row: dict[str, Any], field: str, role: str) -> Any:
    """Return a field as messages: a text is one message of this role."""
    value = _decode(row, field)
    if isinstance(value, str):
        if not value.strip():
            raise RowError("content", f"{field} is empty: write a text, or leave the row out")
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise RowError("messages", f"{field} is {kind_of(value)}: write a text or a list of messages")
    return rewrite_messages(value, field)


def _text(row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise RowError("content", f"{field} must be a text that is not empty: write one, or leave the row out")
    return value


def _decode(row: dict[str, Any], field: str) -> Any:
    """Return a field; messages or tools that a table holds as JSON text are taken out of it."""
    value = row.get(field)
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        decoded = json.loads(value)
    except ValueError:
        return value
    if isinstance(decoded, dict):
        return decoded if "messages" in decoded else value
    if field == "tools":
        return decoded
    return decoded if decoded and all(isinstance(one, dict) and "role" in one for one in decoded) else value


def _check_prompt(messages: Any, schemas: Schemas, where: str) -> None:
    check_messages(messages, schemas, where)
    if messages[-1]["role"] == "assistant":
        raise RowError("assistant", f"{where} ends with the assistant: end it with what is to be answered")


def _check_answer(messages: Any, schemas: Schemas, where: str) -> None:
    check_messages(messages, schemas, where)
    if messages[-1]["role"] != "assistant":
        raise RowError("assistant", f"{where} does not end with a message of the assistant: add its answer")
