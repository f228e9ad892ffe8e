"""Detects the format of rows, and parses them into the examples that training reads. No I/O.

Examples by format:
    Chat, PromptCompletion, Instruction   {"messages": [...], "tools": [...]}
    Text                                  {"text": "..."}
    Preference                            {"prompt": [...], "chosen": [...], "rejected": [...]}
    UnpairedPreference                    {"prompt": [...], "completion": [...], "label": true}
    Prompt                                {"prompt": [...], "reference": {all other fields}}

All but Text have `"tools": [...]` if the row declares tools.
"""

import json
from collections.abc import Callable
from typing import Any

from finetune_api.data import Format

from finetune_trainer.prepare.columns import find_remedy, propose_columns
from finetune_trainer.prepare.messages import Message, check_messages
from finetune_trainer.prepare.normalize import rewrite_messages, rewrite_tools
from finetune_trainer.prepare.row_issues import RowError, describe_type, quote
from finetune_trainer.prepare.tools import Validators, check_tools

Example = dict[str, Any]
MESSAGE_FIELDS = ("messages", "prompt", "completion", "chosen", "rejected")
"""The fields of an example that are lists of messages."""

# The first entry whose fields a row has is its format, so the order matters.
_REQUIRED_FIELDS: tuple[tuple[Format, frozenset[str]], ...] = (
    ("Chat", frozenset({"messages"})),
    ("Preference", frozenset({"chosen", "rejected"})),
    ("Preference", frozenset({"preferred_output", "non_preferred_output"})),
    ("UnpairedPreference", frozenset({"prompt", "completion", "label"})),
    ("PromptCompletion", frozenset({"prompt", "completion"})),
    ("Instruction", frozenset({"instruction", "output"})),
    ("Text", frozenset({"text"})),
    ("Prompt", frozenset({"prompt"})),
)
_OTHER_FIELDS: tuple[tuple[Format, frozenset[str]], ...] = (
    ("UnpairedPreference", frozenset({"messages", "label"})),
    ("Prompt", frozenset({"messages"})),
)
"""Other fields of a format, for methods that do not accept the format that the row would have by the table above."""
_KNOWN_FIELDS: dict[Format, frozenset[str]] = {
    "Chat": frozenset({"messages", "tools", "functions", "parallel_tool_calls"}),
    "PromptCompletion": frozenset({"prompt", "completion", "tools"}),
    "Instruction": frozenset({"instruction", "input", "output", "system"}),
    "Text": frozenset({"text"}),
    "Preference": frozenset(
        {"prompt", "chosen", "rejected", "tools", "input", "preferred_output", "non_preferred_output"}
    ),
    "UnpairedPreference": frozenset({"prompt", "completion", "messages", "label", "tools"}),
}

_MAX_NAMED = 8
"""Fields in a message at most."""


def detect_format(row: dict[str, Any], source_field: str, accepted: tuple[Format, ...] | None = None) -> Format:
    """Return the format of a row by its fields: one that the method accepts, if there is one.

    Args:
        row: the row, after `rewrite_row`.
        source_field: the field of the source in the spec, for messages.
        accepted: the formats that the method accepts; None for all.

    Raises:
        RowError: its fields match no format that can be used; the message lists the formats, or proposes `columns`.
    """
    names = [name for name, required in (*_REQUIRED_FIELDS, *_OTHER_FIELDS) if required <= row.keys()]
    if accepted:
        names.sort(key=lambda name: name not in accepted)
    if names[:1] == ["Chat"] and accepted and "Prompt" in accepted and _is_open(row["messages"]):
        return "Prompt"  # There is no answer to imitate, and the graders get the other fields.
    needs_columns = names == ["Prompt"] and accepted and "Prompt" not in accepted and propose_columns(row)
    if names and not needs_columns:
        return names[0]
    formats = "; ".join(f"{name}: {', '.join(sorted(required))}" for name, required in _REQUIRED_FIELDS)
    remedy = find_remedy(row, source_field) or f"rename them to those of a format ({formats})"
    raise RowError("format", f"the fields {list_fields(row)} match no format: {remedy}")


def _is_open(messages: Any) -> bool:
    """Return whether a conversation ends without an answer."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") != "assistant"


def list_fields(row: dict[str, Any]) -> str:
    """Return the names of a row's fields for a message; of many only the first."""
    names = sorted(row)
    listed = [name[:30] for name in names[:_MAX_NAMED]]
    return ", ".join(listed + [f"{len(names) - _MAX_NAMED} more"] * (len(names) > _MAX_NAMED)) or "(none)"


def check_format(row: dict[str, Any], row_format: Format, source_field: str) -> None:
    """Refuse a row that does not have the format of the data.

    Raises:
        RowError: the message says which format it has.
    """
    requirements = (required for known, required in (*_REQUIRED_FIELDS, *_OTHER_FIELDS) if known == row_format)
    if not any(required <= row.keys() for required in requirements):
        raise RowError(
            "format",
            f"the fields {list_fields(row)} match the format {detect_format(row, source_field)}, but the data has the"
            f" format {row_format}: use one format for all rows, or set {source_field}.format",
        )


def unknown_fields(row: dict[str, Any], row_format: Format) -> set[str]:
    """Return the fields that are ignored. Graders get all fields of a Prompt."""
    return set(row.keys() - _KNOWN_FIELDS[row_format]) if row_format in _KNOWN_FIELDS else set()


def parse_row(row: dict[str, Any], row_format: Format) -> Example:
    """Return the example of a row.

    Raises:
        RowError: the first error in the row.
    """
    return _PARSERS[row_format](row)


def _parse_chat(row: dict[str, Any]) -> Example:
    tools, validators = _parse_tools(row)
    messages = rewrite_messages(_decode(row, "messages"), "messages")
    check_messages(messages, validators, "messages")
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError(
            "assistant", "no message has the role assistant, so there is nothing to train on: add the answer"
        )
    if all(message.get("weight") == 0 for message in answers):
        raise RowError("weight", "all assistant messages have weight 0, so there is nothing to train on: set one to 1")
    max_calls = max(len(message.get("tool_calls", ())) for message in answers)
    if row.get("parallel_tool_calls") is False and max_calls > 1:
        raise RowError(
            "tool_calls",
            f"parallel_tool_calls is false, but a message has {max_calls} tool calls: put each into its own message",
        )
    return {"messages": messages} | tools


def _parse_prompt_completion(row: dict[str, Any]) -> Example:
    tools, validators = _parse_tools(row)
    prompt, completion = _parse_messages(row, "prompt", "user"), _parse_messages(row, "completion", "assistant")
    check_messages(prompt, validators, "prompt")
    _check_answer(completion, validators, "completion")
    return {"messages": [*prompt, *completion]} | tools


def _parse_instruction(row: dict[str, Any]) -> Example:
    instruction, output = _get_text(row, "instruction"), _get_text(row, "output")
    context = row.get("input") or ""
    if not isinstance(context, str):
        raise RowError("content", "input must be a string: correct or remove it")
    question = f"{instruction}\n\n{context}" if context.strip() else instruction
    messages: list[Message] = [{"role": "user", "content": question}, {"role": "assistant", "content": output}]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": _get_text(row, "system")})
    return {"messages": messages}


def _parse_text(row: dict[str, Any]) -> Example:
    return {"text": _get_text(row, "text")}


def _parse_preference(row: dict[str, Any]) -> Example:
    if "preferred_output" in row:
        conversation = _decode(row, "input")
        if not isinstance(conversation, dict):
            raise RowError("messages", 'input must be an object: write {"messages": [...]}')
        tools, validators = _parse_tools(conversation)
        names = ("input.messages", "preferred_output", "non_preferred_output")
        prompt = rewrite_messages(conversation.get("messages"), names[0])
        chosen, rejected = (rewrite_messages(_decode(row, name), name) for name in names[1:])
    else:
        tools, validators = _parse_tools(row)
        names = ("prompt", "chosen", "rejected")
        chosen, rejected = _parse_messages(row, "chosen", "assistant"), _parse_messages(row, "rejected", "assistant")
        prompt, chosen, rejected = _split_prompt(row, chosen, rejected)
    _check_prompt(prompt, validators, names[0])
    for answer, field in ((chosen, names[1]), (rejected, names[2])):
        _check_answer(answer, validators, field)
    if chosen == rejected:
        raise RowError("equal", f"{names[1]} and {names[2]} are identical, so there is no preference: remove the row")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | tools


def _split_prompt(row: dict[str, Any], chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Return prompt, chosen and rejected; the prompt is a field, or the messages that both conversations start with."""
    if "prompt" in row:
        return _parse_messages(row, "prompt", "user"), chosen, rejected
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise RowError(
            "messages",
            "the prompt is missing: add the field prompt, or start chosen and rejected with the same messages",
        )
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _parse_unpaired(row: dict[str, Any]) -> Example:
    tools, validators = _parse_tools(row)
    if "messages" in row:
        messages = _parse_messages(row, "messages", "user")
        prompt, completion, names = messages[:-1], messages[-1:], ("messages", "messages")
    else:
        prompt, completion = _parse_messages(row, "prompt", "user"), _parse_messages(row, "completion", "assistant")
        names = ("prompt", "completion")
    _check_prompt(prompt, validators, names[0])
    _check_answer(completion, validators, names[1])
    label = {"true": True, "false": False}.get(row["label"].lower()) if isinstance(row["label"], str) else row["label"]
    if not isinstance(label, bool):
        raise RowError("label", f"label is {quote(row['label'])}: write true or false")
    return {"prompt": prompt, "completion": completion, "label": label} | tools


def _parse_prompt(row: dict[str, Any]) -> Example:
    tools, validators = _parse_tools(row)
    field = "messages" if "messages" in row else "prompt"
    prompt = _parse_messages(row, field, "user")
    _check_prompt(prompt, validators, field)
    reference = {key: value for key, value in row.items() if key not in (field, "tools")}
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


def _parse_tools(row: dict[str, Any]) -> tuple[Example, Validators]:
    """Return the field `tools` of an example, if the row declares tools, and the validators of their calls."""
    tools = rewrite_tools(_decode(row, "tools"), row.get("functions"))
    validators = check_tools(tools)
    return ({"tools": tools} if tools else {}), validators


def _parse_messages(row: dict[str, Any], field: str, role: str) -> Any:
    """Return a field as messages: a string is one message of this role."""
    value = _decode(row, field)
    if isinstance(value, str):
        if not value.strip():
            raise RowError("content", f"{field} is empty: write some text, or remove the row")
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise RowError("messages", f"{field} is {describe_type(value)}: write a string or a list of messages")
    return rewrite_messages(value, field)


def _get_text(row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise RowError("content", f"{field} must be a non-empty string: write one, or remove the row")
    return value


def _decode(row: dict[str, Any], field: str) -> Any:
    """Return a field; decode messages or tools that are JSON strings, as in tables."""
    value = row.get(field)
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        decoded = json.loads(value)
    except ValueError as error:
        if field == "messages":
            raise RowError("json", f"messages is not JSON: {error}: write the list with json.dumps") from None
        return value
    if isinstance(decoded, dict):
        return decoded if "messages" in decoded else value
    if field == "tools":
        return decoded
    return decoded if decoded and all(isinstance(item, dict) and "role" in item for item in decoded) else value


def _check_prompt(messages: Any, validators: Validators, field: str) -> None:
    check_messages(messages, validators, field)
    if messages[-1]["role"] == "assistant":
        raise RowError("assistant", f"{field} ends with an assistant message: end it with the message to answer")


def _check_answer(messages: Any, validators: Validators, field: str) -> None:
    check_messages(messages, validators, field)
    if messages[-1]["role"] != "assistant":
        raise RowError("assistant", f"{field} does not end with an assistant message: add the answer")
