"""What a run prints."""

import io

from finetune.display import RunDisplay, format_dataset, format_evaluation
from finetune_api.jobstatus import FineTuneJobStatus, TrainingProgress
from finetune_api.summaries import DatasetSummary, EvaluationSummary
from finetune_operator.state.conditions import Event
from finetune_operator.state.views import JobView
from rich.console import Console
from unit.pod_reports import DIGEST
from unit.specs import spec


def print_all(*parts: object) -> str:
    console = Console(file=io.StringIO(), width=100)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_evaluation_shows_each_metric_with_its_interval() -> None:
    metric = {
        "metric": "ExactMatch",
        "examples": 45,
        "base": 0.1,
        "tuned": 0.9,
        "gain": 0.8,
        "gainLow": 0.7,
        "gainHigh": 0.85,
        "verdict": "Improved",
    }
    evaluation = {"examples": 45, "passed": True, "metrics": [metric], "gates": []}
    text = print_all(format_evaluation(EvaluationSummary.model_validate(evaluation)))
    assert "Evaluation on 45 held-out examples" in text
    row = next(line for line in text.splitlines() if "ExactMatch" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "ExactMatch", "0.100", "0.900", "0.800", "0.700 to 0.850", "Improved",
    ]  # fmt: skip


def test_the_data_check_names_what_is_not_learned() -> None:
    dataset = {
        "format": "Chat",
        "trainExamples": 90,
        "heldoutExamples": 10,
        "trainTokens": 4000,
        "longestExampleTokens": 77,
        "learnedAnswers": 100,
        "unlearnedAnswers": 3,
        "warnings": {"omitted": 4},
        "steps": 12,
        "digest": DIGEST,
    }
    text = print_all(format_dataset(DatasetSummary.model_validate(dataset)))
    for part in ("Chat", "90 to train on, 10 held out", "100 to learn, 3 that cannot", "77 in the longest", "4 rows"):
        assert part in text


def test_each_stage_has_a_line_that_stays() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    progress = TrainingProgress(percentage=50, step=5, steps=10, text="50% 3s left", loss=0.25)
    with RunDisplay(console) as display:
        for stage in ("Prepare", "Train", "Complete"):
            status = FineTuneJobStatus.model_validate({"stage": stage})
            job = JobView("shop", "local", "0123", 1, spec(), "", status)
            display.show(job, progress if stage == "Train" else None)
        display.report(Event(type="Warning", reason="Retrying", message="attempt [1] failed [/]"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    last = text[text.rindex("checking the data") :]
    assert "training" in last
    assert "Retrying" in text
    assert "attempt [1] failed [/]" in text
