"""What the rows of a data file mean: which format they have, and the one shape that training reads. Pure.

Shapes, by the format:
    Chat, PromptCompletion, Instruction   {"messages": [...], "tools": [...]}
    Text                                  {"text": "..."}
    Preference                            {"prompt": [...], "chosen": [...], "rejected": [...], "tools": [...]}
    UnpairedPreference                    {"prompt": [...], "completion": [...], "label": true}
    Prompt                                {"prompt": [...], "reference": {every other field}}
"""

import json
from collections.abc import Callable
from typing import Any

from finetune_api.data import Format

from finetune_trainer.messages import Message, RowError, check_messages, check_tools

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
    "Chat": frozenset({"messages", "tools", "parallel_tool_calls"}),
    "PromptCompletion": frozenset({"prompt", "completion"}),
    "Instruction": frozenset({"instruction", "input", "output", "system"}),
    "Text": frozenset({"text"}),
    "Preference": frozenset(
        {"prompt", "chosen", "rejected", "tools", "input", "preferred_output", "non_preferred_output"}
    ),
    "UnpairedPreference": frozenset({"prompt", "completion", "label"}),
}


def detect_format(row: dict[str, Any]) -> Format:
    """Return the format of a row by its fields.

    Raises:
        RowError: it has the fields of none; the message says which there are.
    """
    for name, signs in _SIGNS:
        if signs <= row.keys():
            return name
    wanted = "; ".join(f"{name}: {', '.join(sorted(signs))}" for name, signs in _SIGNS)
    raise RowError("format", f"the fields {', '.join(sorted(row)) or '(none)'} are those of no format ({wanted})")


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
    messages, tools = _decode(row, "messages"), _decode(row, "tools")
    check_messages(messages, check_tools(tools), "messages")
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError("assistant", "no message of role assistant: there is nothing to learn")
    if all(message.get("weight") == 0 for message in answers):
        raise RowError("weight", "every message of the assistant has weight 0: there is nothing to learn")
    return {"messages": messages} | ({"tools": tools} if tools else {})


def _parse_prompt_completion(row: dict[str, Any]) -> Example:
    prompt, completion = _turns(row, "prompt", "user"), _turns(row, "completion", "assistant")
    check_messages([*prompt, *completion], {}, "prompt and completion")
    _check_answer(completion, "completion")
    return {"messages": [*prompt, *completion]}


def _parse_instruction(row: dict[str, Any]) -> Example:
    instruction, output = _text(row, "instruction"), _text(row, "output")
    more = row.get("input") or ""
    if not isinstance(more, str):
        raise RowError("content", "input must be a string")
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
            raise RowError("messages", 'input is not {"messages": [...]}')
        prompt, tools = given.get("messages"), given.get("tools")
        chosen, rejected = _decode(row, "preferred_output"), _decode(row, "non_preferred_output")
        names = ("input.messages", "preferred_output", "non_preferred_output")
    else:
        tools = _decode(row, "tools")
        chosen, rejected = _turns(row, "chosen", "assistant"), _turns(row, "rejected", "assistant")
        prompt, chosen, rejected = _split_prompt(row, chosen, rejected)
        names = ("prompt", "chosen", "rejected")
    schemas = check_tools(tools)
    check_messages(prompt, schemas, names[0])
    for answer, where in ((chosen, names[1]), (rejected, names[2])):
        check_messages(answer, schemas, where)
        _check_answer(answer, where)
    if chosen == rejected:
        raise RowError("equal", f"{names[1]} and {names[2]} are the same: there is nothing to prefer")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | ({"tools": tools} if tools else {})


def _split_prompt(row: dict[str, Any], chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Take the prompt from its own field, or from what both conversations begin with."""
    if "prompt" in row:
        return _turns(row, "prompt", "user"), chosen, rejected
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _parse_unpaired(row: dict[str, Any]) -> Example:
    example = _parse_prompt_completion(row)
    label = {"true": True, "false": False}.get(row["label"].lower()) if isinstance(row["label"], str) else row["label"]
    if not isinstance(label, bool):
        raise RowError("label", f"label {row['label']!r} is neither true nor false")
    completion = _turns(row, "completion", "assistant")
    return {"prompt": example["messages"][: -len(completion)], "completion": completion, "label": label}


def _parse_prompt(row: dict[str, Any]) -> Example:
    prompt = _turns(row, "prompt", "user")
    check_messages(prompt, {}, "prompt")
    if prompt[-1]["role"] == "assistant":
        raise RowError("assistant", "prompt ends with the assistant: nothing is left to answer")
    return {"prompt": prompt, "reference": {key: value for key, value in row.items() if key != "prompt"}}


_PARSERS: dict[Format, Callable[[dict[str, Any]], Example]] = {
    "Chat": _parse_chat,
    "PromptCompletion": _parse_prompt_completion,
    "Instruction": _parse_instruction,
    "Text": _parse_text,
    "Preference": _parse_preference,
    "UnpairedPreference": _parse_unpaired,
    "Prompt": _parse_prompt,
}


def _turns(row: dict[str, Any], field: str, role: str) -> Any:
    """Return a field as messages: a text is one message of this role."""
    value = _decode(row, field)
    if isinstance(value, str):
        if not value.strip():
            raise RowError("content", f"{field} is empty")
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise RowError("messages", f"{field} is a {type(value).__name__}, neither a text nor a list of messages")
    return value


def _text(row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise RowError("content", f"{field} must be a text that is not empty")
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


def _check_answer(messages: list[Message], where: str) -> None:
    if messages[-1]["role"] != "assistant":
        raise RowError("assistant", f"{where} does not end with a message of the assistant")
