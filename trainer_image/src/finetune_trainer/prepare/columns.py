"""Renames the fields of rows to those of a format, as `columns` says, and proposes names for others. No I/O."""

from typing import Any

from finetune_trainer.prepare.row_issues import RowError

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "messages": ("conversation", "dialog", "dialogue", "chat", "turns"),
    "prompt": ("question", "query", "input", "user", "instruction", "problem", "request", "ask"),
    "completion": ("answer", "response", "output", "target", "solution", "reply", "assistant", "generation"),
    "chosen": ("preferred", "accepted", "better", "winner", "response_chosen", "chosen_response"),
    "rejected": ("dispreferred", "worse", "loser", "response_rejected", "rejected_response"),
    "text": ("content", "document", "body", "passage", "article"),
}
"""Names under which public datasets have a field of a format."""
_PROPOSALS = (("messages",), ("prompt", "chosen", "rejected"), ("prompt", "completion"), ("text",), ("prompt",))


def select_columns(row: dict[str, Any], columns: dict[str, str], source_field: str) -> dict[str, Any]:
    """Return a row with the fields that `columns` names, instead of the columns that they are read from.

    Args:
        row: the row as it was read.
        columns: for each field of a format the column, or the path of a nested value: `a.b` or `a.0.b`.
        source_field: the field of the source in the spec, for messages.

    Raises:
        RowError: a column is missing.
    """
    selected = {field: _find_value(row, path, f"{source_field}.columns.{field}") for field, path in columns.items()}
    used = {path.partition(".")[0] for path in columns.values()}
    return {name: value for name, value in row.items() if name not in used} | selected


def _find_value(row: Any, path: str, field: str) -> Any:
    if path in row:
        return row[path]
    value = row
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise RowError("columns", f"{field} is {path}, but the row has no {part}: correct the path")
    return value


def find_remedy(row: dict[str, Any], source_field: str) -> str:
    """Return what to do about a row whose fields match no format; empty if its names and values say nothing."""
    if columns := propose_columns(row):
        mapping = ", ".join(f"{field}: {name}" for field, name in columns.items())
        return f"set {source_field}.columns to {{{mapping}}}, or use the fields of a format"
    lists = [name for name, value in row.items() if isinstance(value, list) and isinstance((value or [0])[0], dict)]
    return f"if the rows are the list in {lists[0][:30]}, write only this list" if len(lists) == 1 else ""


def propose_columns(row: dict[str, Any]) -> dict[str, str]:
    """Return `columns` for a row whose fields match no format; empty if its names say nothing."""
    names = {name.lower(): name for name in row}
    for fields in _PROPOSALS:
        found: dict[str, str] = {}
        for field in fields:
            name = next((names[name] for name in (field, *_SYNONYMS[field]) if name in names), None)
            if name is not None and name not in found.values():
                found[field] = name
        if len(found) == len(fields):
            return {field: name for field, name in found.items() if field != name}
    return {}
