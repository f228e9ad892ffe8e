"""Rewrites the forms in which public datasets have their rows into the fields of our formats. No I/O."""

import json
import re
from typing import Any

from finetune_trainer.prepare.row_issues import RowError
from finetune_trainer.prepare.sharegpt import is_turn, number_calls, rewrite_turns

Row = dict[str, Any]
_CONVERSATIONS = ("conversations", "conversation")
_SYSTEM = ("system", "system_prompt")
_MEDIA = ("images", "image", "audios", "audio", "videos", "video")
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):\s*")
_TRANSCRIPT_ROLES = {"Human": "user", "Assistant": "assistant"}
_ANSWERS = ("chosen", "rejected")


def rewrite_row(row: Row) -> Row:
    """Return a row with the fields of a format; fields that need no change stay as they are.

    Raises:
        RowError: the row has media, or a conversation that cannot be read.
    """
    _refuse_media(row)
    row = _rewrite_conversation(row)
    answers = {name: _rewrite_answer(row[name], name) for name in _ANSWERS if name in row}
    if row.get("tools") and "completion" in row:
        answers["completion"] = _rewrite_calls(row["completion"])
    return _add_system(_drop_repeated_prompt(row | answers))


def _refuse_media(row: Row) -> None:
    for name in _MEDIA:
        if row.get(name):
            raise RowError("media", f"the row has {name}, but only text is learned: remove the row or its {name}")


def _rewrite_conversation(row: Row) -> Row:
    """Return a row with `messages` instead of turns; beside answers to choose from they are the prompt."""
    if "messages" in row:
        messages = _decode(row["messages"])
        has_turns = isinstance(messages, list) and any(map(is_turn, messages))
        return row | {"messages": rewrite_turns(messages, "messages")} if has_turns else row
    name = next((name for name in _CONVERSATIONS if name in row), None)
    if name is None:
        return row
    rest = {key: value for key, value in row.items() if key != name}
    messages = rewrite_turns(_decode(row[name]), name)
    return rest | {"prompt" if all(answer in row for answer in _ANSWERS) else "messages": messages}


def _rewrite_answer(value: Any, field: str) -> Any:
    """Return an answer as messages if it is a turn, turns, or a transcript; anything else as it is."""
    if is_turn(value):
        return rewrite_turns([value], field)
    if isinstance(value, dict) and "role" in value:
        return [value]
    if isinstance(value, list) and value and all(map(is_turn, value)):
        return rewrite_turns(value, field)
    if isinstance(value, str) and value.startswith("\n\nHuman:"):
        _, *parts = _TRANSCRIPT.split(value)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [{"role": _TRANSCRIPT_ROLES[speaker], "content": text.strip()} for speaker, text in pairs]
    return value


def _rewrite_calls(value: Any) -> Any:
    """Return a list of calls of tools as an answer with them; anything else as it is."""
    calls = _decode(value)
    if not isinstance(calls, list) or not calls or not all(isinstance(call, dict) for call in calls):
        return value
    if not all(call.keys() == {"name", "arguments"} for call in calls):
        return value
    return [{"role": "assistant", "content": None, "tool_calls": number_calls(calls, 0)}]


def _drop_repeated_prompt(row: Row) -> Row:
    """Return a preference whose answers do not begin with the prompt again; then the prompt is in them alone."""
    answers = [row.get(name) for name in _ANSWERS]
    prompt = row.get("prompt")
    repeats = isinstance(prompt, str) and all(
        isinstance(answer, list) and len(answer) > 1 and _is_question(answer, prompt) for answer in answers
    )
    return {name: value for name, value in row.items() if name != "prompt"} if repeats else row


def _is_question(answer: list[Any], prompt: str) -> bool:
    """Return whether a conversation asks a prompt before its last message."""
    question = answer[-2]
    return isinstance(question, dict) and question.get("role") == "user" and question.get("content") == prompt


def _add_system(row: Row) -> Row:
    """Return a row with its system prompt as the first message; instructions have a field for it."""
    name = next((name for name in _SYSTEM if row.get(name)), None)
    target = next((field for field in ("messages", "prompt") if field in row), None)
    if name is None or target is None or "instruction" in row or not isinstance(row[name], str):
        return row
    messages = _decode(row[target])
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or any(_has_system(message) for message in messages):
        return row
    rest = {key: value for key, value in row.items() if key != name}
    return rest | {target: [{"role": "system", "content": row[name]}, *messages]}


def _has_system(message: Any) -> bool:
    return not isinstance(message, dict) or message.get("role") in ("system", "developer")


def _decode(value: Any) -> Any:
    """Return a list that is JSON text, as in tables; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            decoded = json.loads(value)
        except ValueError:
            return value
        return decoded if isinstance(decoded, list) and all(isinstance(item, dict) for item in decoded) else value
    return value
