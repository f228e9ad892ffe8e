"""What a stage says when it ends: that it fits, and what is no report."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_api.contract.reports import MAX_MESSAGE_BYTES, StageReport, parse_report, write_report
from unit.pod_reports import TRAINED


def test_a_report_is_taken_over() -> None:
    assert parse_report(json.dumps(TRAINED)) is not None


@pytest.mark.parametrize(
    ("outcome", "reason", "code"),
    [("Succeeded", "GatesFailed", 0), ("Failed", "DatasetInvalid", 65), ("Failed", "Retrying", 143)],
)
def test_the_exit_code_follows_from_the_report(outcome: str, reason: str, code: int) -> None:
    assert StageReport.model_validate({"outcome": outcome, "reason": reason}).exit_code == code


def test_reports_fit_the_kubelet_and_keep_their_parts(tmp_path: Path) -> None:
    report = StageReport.model_validate({"outcome": "Failed", "reason": "DatasetInvalid", "message": "é" * 1024})
    write_report(report, str(tmp_path / "log"))
    assert parse_report((tmp_path / "log").read_text()) == report
    assert len((tmp_path / "log").read_bytes()) <= MAX_MESSAGE_BYTES


def test_the_report_of_the_largest_mix_fits(tmp_path: Path) -> None:
    source = {"format": "UnpairedPreference", "examples": 10**9, "trainExamples": 10**11, "heldoutExamples": 10**9}
    dataset: dict[str, Any] = {"sources": [source] * 16, "digest": f"sha256:{'a' * 64}"}
    dataset |= {"warnings": {f"warning-{number}": 10**9 for number in range(32)}}
    counts = ("trainExamples", "heldoutExamples", "trainTokens", "longestExampleTokens", "steps")
    dataset |= dict.fromkeys(counts, 10**12)
    report = StageReport.model_validate(
        {"outcome": "Succeeded", "reason": "Succeeded", "message": "x" * 1024, "dataset": dataset}
    )
    write_report(report, str(tmp_path / "log"))
    read = parse_report((tmp_path / "log").read_text())
    assert read is not None
    assert read.dataset == report.dataset


def test_the_longest_report_keeps_its_figures_and_loses_text(tmp_path: Path) -> None:
    gate: dict[str, Any] = {"metric": "ClassificationF1", "grader": "g" * 32, "relativeTo": "Incumbent"}
    gate |= {"passed": True, "message": "\\ü" * 512}
    ends: dict[str, Any] = dict.fromkeys(("gain", "gainLow", "gainHigh"), -123456.123456) | {"verdict": "Inconclusive"}
    metric: dict[str, Any] = {
        "metric": "ClassificationF1",
        "grader": "g" * 32,
        "base": 123456.123456,
        "tuned": 123456.123456,
    } | ends
    metric |= {"incumbent": {"value": 123456.123456} | ends}
    report = StageReport.model_validate(
        {
            "outcome": "Succeeded",
            "reason": "Succeeded",
            "message": "\n" * 1024,
            "evaluation": {"examples": 10_000, "passed": True, "metrics": [metric] * 8, "gates": [gate] * 8},
        }
    )
    write_report(report, str(tmp_path / "log"))
    written = parse_report((tmp_path / "log").read_text())
    assert len((tmp_path / "log").read_bytes()) <= MAX_MESSAGE_BYTES
    assert written is not None
    assert written.evaluation is not None
    assert report.evaluation is not None
    assert written.evaluation.metrics == report.evaluation.metrics
    assert [gate.passed for gate in written.evaluation.gates] == [True] * 8


@pytest.mark.parametrize(
    "text", ["", "killed", "[]", '{"outcome": "Succeeded"}', '{"outcome": "x"}', "{" * 5000, "9" * 5000]
)
def test_anything_but_a_report_is_read_as_none(text: str) -> None:
    assert parse_report(text) is None
