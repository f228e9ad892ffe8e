"""Counting of test results: a test that failed, was skipped or never ran does not count as passed."""

from pathlib import Path

import pytest
from run import Counts, count_results, format_time


def results(directory: Path, *cases: str) -> Path:
    path = directory / "results.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def case(name: str, outcome: str = "") -> str:
    return f'<testcase classname="tests" name="{name}">{outcome}</testcase>'


def test_each_test_counts_once_by_its_worst_outcome(tmp_path: Path) -> None:
    path = results(
        tmp_path,
        case("passes"),
        case("fails", "<failure/>"),
        case("breaks-in-its-teardown"),
        case("breaks-in-its-teardown", "<error/>"),
        case("skips", "<skipped/>"),
    )
    assert count_results(path) == Counts(passed=1, failed=2, skipped=1)


def test_a_run_without_results_is_a_failure(tmp_path: Path) -> None:
    assert count_results(tmp_path / "none.xml") == Counts(passed=0, failed=1, skipped=0)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "  0:00"), (59.6, "  1:00"), (3599, " 59:59"), (5400, " 90:00")])
def test_a_duration_is_formatted_as_minutes_and_seconds(seconds: float, text: str) -> None:
    assert format_time(seconds) == text
