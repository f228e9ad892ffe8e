"""Parses the rows of JSON files, which are lines or the items of one list, and says how to correct what is not JSON."""

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from finetune_trainer.prepare.row_issues import RowError, describe_type

MAX_ROW_BYTES = 1 << 22
"""A longer row is a mistake: it does not fit into any model's context."""
_PYTHON_TEXT = re.compile(r"[\[{\s]*'|(True|False|None)\b")
_TOO_DEEP = "cannot parse the JSON: it is nested too deeply, use fewer levels"
_TOO_MANY_DIGITS = "cannot parse the JSON: a number has too many digits, write it as a string"
"""Python parses integers of 4,300 digits at most."""
_TOO_LONG = f"an item has more than {MAX_ROW_BYTES} bytes, split it into several"
_MAX_LITERAL = 16
"""Characters before the end of a text that is cut in the middle where a parser may see the error, at most."""
_SPACES = re.compile(r"\s*")


class _InvalidValueError(Exception):
    """A value that a row must not contain."""


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; refuse duplicate fields, one of which would be lost."""
    built = dict(pairs)
    if len(built) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise _InvalidValueError(f"an object has the field {duplicate[:30]!r} twice, remove one")
    return built


def _refuse_constant(name: str) -> None:
    raise _InvalidValueError(f"{name} is not a JSON value, remove the field")


_DECODER = json.JSONDecoder(object_pairs_hook=_build_object, parse_constant=_refuse_constant)


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the object of a line without its line end.

    Raises:
        RowError: the line is not UTF-8, not JSON or not an object.
    """
    try:
        return check_object(_DECODER.decode(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise RowError("encoding", f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        remedy = _find_remedy(error) or "write one JSON object per line"
        raise RowError("json", f"not JSON: {error.msg} (column {error.colno}): {remedy}") from None
    except (RecursionError, _InvalidValueError, ValueError) as error:
        raise RowError("json", _describe(error)) from None


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    return f"cannot parse the JSON: {error}" if isinstance(error, _InvalidValueError) else _TOO_MANY_DIGITS


def _find_remedy(error: json.JSONDecodeError) -> str:
    """Return what to do about a common mistake; empty for others."""
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    if error.msg == "Extra data" and after == ",":
        return "remove the comma at the end of the line"
    if before.endswith(",") and after[:1] in ("}", "]"):
        return f"remove the comma before {after[:1]}"
    if _PYTHON_TEXT.match(after) or _PYTHON_TEXT.match(error.doc):
        return "this is Python's notation, write the rows with json.dumps"
    return ""


def check_object(value: Any) -> dict[str, Any]:
    """Return a row that is an object.

    Raises:
        RowError: it is something else.
    """
    if not isinstance(value, dict):
        raise RowError("object", f'the row is {describe_type(value)}, not an object: write {{"messages": [...]}}')
    return value


def parse_list(file: IO[bytes]) -> Iterator[dict[str, Any] | RowError]:
    """Yield the objects of a list, and an error for each item that cannot be used; memory does not grow with the file.

    After text that is not JSON the rest of the list cannot be read: its error is the last one.

    Args:
        file: starts with `[`, after a byte order mark and spaces at most.
    """
    text = _ListText(io.TextIOWrapper(file, "utf-8-sig", "surrogateescape"))
    try:
        text.skip("[")
        if not text.skip("]"):
            yield text.parse_item()
            while text.skip(","):
                yield text.parse_item()
            text.expect("]", "a comma or ] is missing")
        text.expect("", "there is text after the end of the list")
    except json.JSONDecodeError as error:
        remedy = _find_remedy(error) or "correct it, or write one JSON object per line"
        yield RowError("json", f"the rest of the list is not JSON: {error.msg} ({text.locate(error)}): {remedy}")
    except (RecursionError, _InvalidValueError, ValueError) as error:
        yield RowError("json", f"the rest of the list cannot be read: {_describe(error)}")


class _ListText:
    """The part of a list's text that is being parsed: more than a row, unless the file ends before."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self.file = file
        self.text = ""
        self.position = 0
        self.skipped_lines = 0
        """Line ends before `text`."""
        self.skipped_columns = 0
        """Characters before `text` in its first line."""
        self.is_last = False
        """Whether the file ends where `text` does."""

    def skip(self, character: str) -> bool:
        """Skip spaces and then this character; return whether it is there."""
        self._read()
        self.position = _SPACES.match(self.text, self.position).end()  # type: ignore[union-attr]
        is_next = self.text.startswith(character, self.position)
        self.position += len(character) if is_next else 0
        return is_next

    def expect(self, character: str, problem: str) -> None:
        """Skip this character; with none, expect the end of the file.

        Raises:
            JSONDecodeError: there is another one.
        """
        if not self.skip(character) or (not character and self.position < len(self.text)):
            raise json.JSONDecodeError(problem, self.text, self.position)

    def parse_item(self) -> dict[str, Any] | RowError:
        """Return the next item, or its error if the items after it can be read.

        Raises:
            JSONDecodeError: it is not JSON.
        """
        self.skip("")
        start = self.position
        try:
            value, self.position = _DECODER.raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            is_cut = error.msg.startswith("Unterminated") or error.pos + _MAX_LITERAL > len(self.text)
            if is_cut and not self.is_last:
                raise _InvalidValueError(_TOO_LONG) from None
            raise
        try:
            self.text[start : self.position].encode()
            return check_object(value)
        except UnicodeEncodeError:
            return RowError("encoding", "not UTF-8: save the file as UTF-8")
        except RowError as error:
            return error

    def locate(self, error: json.JSONDecodeError) -> str:
        """Return line and column of an error in the file."""
        column = error.colno + (self.skipped_columns if error.lineno == 1 else 0)
        return f"line {self.skipped_lines + error.lineno}, column {column}"

    def _read(self) -> None:
        """Read on if there may be less than a row."""
        if self.is_last or len(self.text) - self.position > MAX_ROW_BYTES:
            return
        line_end = self.text.rfind("\n", 0, self.position)
        self.skipped_columns = self.position - line_end - 1 + (self.skipped_columns if line_end < 0 else 0)
        self.skipped_lines += self.text.count("\n", 0, self.position)
        added = self.file.read(MAX_ROW_BYTES)
        self.text = self.text[self.position :] + added
        self.position, self.is_last = 0, not added
