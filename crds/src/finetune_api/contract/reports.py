"""The report that a stage leaves when it ends: its termination message and its exit code.

A stage writes a StageReport as JSON of at most MAX_MESSAGE_BYTES bytes to its termination log. The operator parses it
strictly and copies its parts into the job's status. Kubernetes keeps the message while no operator runs.
"""

from typing import Literal

from finetune_api.artifact import Artifact
from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode, find_failure
from finetune_api.contract.untrusted import parse_untrusted
from finetune_api.estimate import Estimate
from finetune_api.model import ApiModel
from finetune_api.summaries import (
    ChosenHyperparameters,
    DatasetSummary,
    EvaluationSummary,
    ExportSummary,
    Text,
    TrainingSummary,
)

MAX_MESSAGE_BYTES = 4096
"""Maximum size of a termination message that the kubelet keeps."""


class StageReport(ApiModel):
    """The termination message of a stage: the outcome, and the parts of the job's status that the stage determines."""

    outcome: Literal["Succeeded", "Failed"]
    reason: Reason
    message: Text = ""
    dataset: DatasetSummary | None = None
    hyperparameters: ChosenHyperparameters | None = None
    estimate: Estimate | None = None
    training: TrainingSummary | None = None
    artifact: Artifact | None = None
    evaluation: EvaluationSummary | None = None
    export: ExportSummary | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the process that writes this report."""
        return ExitCode.OK if self.outcome == "Succeeded" else find_failure(self.reason).exit_code


def parse_report(text: str) -> StageReport | None:
    """Return the report in a termination message; None if it is invalid (killed, crashed or hostile stage)."""
    return parse_untrusted(StageReport, text, MAX_MESSAGE_BYTES)


def write_report(report: StageReport, path: str) -> None:
    """Write the termination message. If it is too long for the kubelet, its texts are shortened, never its numbers."""
    text = _to_json(report)
    for max_length in (512, 128, 32, 0):
        if len(text.encode()) <= MAX_MESSAGE_BYTES:
            break
        text = _to_json(_shorten(report, max_length))
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - /dev/termination-log is given as a string
        file.write(text)


def write_failure(message: str, path: str) -> None:
    """Write the termination message of a server that cannot start: a plain text, shortened for the kubelet."""
    with open(path, "wb") as file:  # noqa: PTH123 - /dev/termination-log is given as a string
        file.write(message.encode()[:MAX_MESSAGE_BYTES])


def _to_json(report: StageReport) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


def _shorten(report: StageReport, max_length: int) -> StageReport:
    """Return the report with texts of at most `max_length` characters."""
    evaluation = report.evaluation
    if evaluation:
        gates = [gate.model_copy(update={"message": gate.message[:max_length]}) for gate in evaluation.gates]
        evaluation = evaluation.model_copy(update={"gates": gates})
    return report.model_copy(update={"message": report.message[:max_length], "evaluation": evaluation})
