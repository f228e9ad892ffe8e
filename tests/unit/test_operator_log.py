"""The log oracle that every tier with an operator uses."""

import json

import pytest
from operator_log import check_log, unexpected_errors


def line(level: str, message: str = "x") -> str:
    return json.dumps({"level": level, "message": message}, ensure_ascii=False)


def test_refusals_that_come_again_are_expected() -> None:
    log = "\n".join([line("info"), line("warning", "requeued after 1.0 s"), line("debug"), ""])
    assert unexpected_errors(log) == []
    check_log(log)


@pytest.mark.parametrize("wrong", [line("error"), line("critical"), "Traceback (most recent call last):", "[]"])
def test_errors_and_lines_other_than_json_are_found(wrong: str) -> None:
    log = f"{line('info')}\n{wrong}\n"
    assert len(unexpected_errors(log)) == 1
    with pytest.raises(AssertionError):
        check_log(log)


def test_an_empty_log_fails() -> None:
    with pytest.raises(AssertionError, match="empty"):
        check_log("\n")


def test_a_users_line_separator_makes_no_line() -> None:
    assert unexpected_errors(line("info", "a\u2028b\x85c")) == []
