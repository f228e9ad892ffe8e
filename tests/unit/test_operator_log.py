"""Which lines of the operator's log are unexpected errors."""

import json

import pytest
from operator_log import check_log, unexpected_errors


def line(level: str, message: str = "x") -> str:
    return json.dumps({"level": level, "message": message}, ensure_ascii=False)


def test_warnings_about_retries_are_expected() -> None:
    log = "\n".join([line("info"), line("warning", "requeued after 1.0 s"), line("debug"), ""])
    assert unexpected_errors(log) == []
    check_log(log)


@pytest.mark.parametrize("text", [line("error"), line("critical"), "Traceback (most recent call last):", "[]"])
def test_errors_and_lines_that_are_not_json_are_unexpected(text: str) -> None:
    log = f"{line('info')}\n{text}\n"
    assert len(unexpected_errors(log)) == 1
    with pytest.raises(AssertionError):
        check_log(log)


def test_an_empty_log_fails() -> None:
    with pytest.raises(AssertionError, match="empty"):
        check_log("\n")


def test_unicode_line_separators_do_not_split_a_line() -> None:
    assert unexpected_errors(line("info", "a\u2028b\x85c")) == []
