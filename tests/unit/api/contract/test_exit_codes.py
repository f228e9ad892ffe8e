"""The table of failures: it has every reason that a stage can report, and no other."""

import ast
from pathlib import Path

import pytest
from finetune_api.conditions import NORMAL_REASONS, Reason
from finetune_api.contract.exit_codes import FAILURES, ExitCode, find_failure

ROOT = Path(__file__).parents[4]
STAGES = ("trainer_image/src", "serving_image/src", "pod_common/src")
NOT_FAILURES = {*NORMAL_REASONS, Reason.GATES_FAILED, Reason.INCONCLUSIVE}
"""With these a stage succeeds: a model that does not pass its gates was evaluated all the same."""


def list_reported() -> set[Reason]:
    """Return the reasons that the programs of the stages name in their code."""
    files = [file for folder in STAGES for file in (ROOT / folder).rglob("*.py")]
    assert files
    return {
        Reason[node.attr]
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }


def test_every_reason_that_a_stage_reports_is_in_the_table() -> None:
    assert set(FAILURES) == list_reported() - NOT_FAILURES


@pytest.mark.parametrize(
    ("code", "reasons"),
    [
        (ExitCode.BAD_DATA, {Reason.DATASET_INVALID}),
        (ExitCode.OUT_OF_MEMORY, {Reason.OUT_OF_MEMORY, Reason.GPU_OUT_OF_MEMORY}),
        (ExitCode.STORAGE_FULL, {Reason.STORAGE_FULL}),
        (ExitCode.TRANSIENT, {Reason.SOURCE_UNREACHABLE, Reason.RATE_LIMITED}),
        (ExitCode.ACCESS_DENIED, {Reason.ACCESS_DENIED, Reason.TERMS_NOT_ACCEPTED, Reason.VOLUME_ACCESS_DENIED}),
        (ExitCode.STOPPED, {Reason.RETRYING}),
        (ExitCode.OK, set()),
    ],
)
def test_these_exit_codes_have_a_meaning_of_their_own(code: ExitCode, reasons: set[Reason]) -> None:
    """The operator reads OUT_OF_MEMORY and STOPPED where a pod leaves no report."""
    assert {reason for reason, failure in FAILURES.items() if failure.exit_code is code} == reasons


def test_a_reason_that_no_stage_reports_is_a_software_error_that_is_retried() -> None:
    assert find_failure(Reason.SERVER_FULL) == (ExitCode.SOFTWARE, False)
