"""What a run shows in the terminal: progress bars, events, the evaluation."""

from types import TracebackType
from typing import Self

from finetune_api.jobstatus import TrainingProgress
from finetune_api.stage import Phase, Stage
from finetune_api.summaries import DatasetSummary, EvaluationSummary
from finetune_operator.state.conditions import Event
from finetune_operator.state.views import JobView
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_STAGES: dict[str, str] = {
    Stage.PREPARE: "checking the data",
    Stage.TRAIN: "training",
    Stage.EVALUATE: "evaluating",
    Stage.EXPORT: "exporting",
    Phase.SERVE: "starting the server",
}


class RunDisplay:
    """The progress of a run: one line for each stage, and a line for each event."""

    def __init__(self, console: Console) -> None:
        """Show on a console; without a terminal only the events are printed."""
        columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description:20}"), BarColumn(30))
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Start to show."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to show; the lines stay."""
        self._progress.stop()

    def show(self, job: JobView, progress: TrainingProgress | None) -> None:
        """Show the stage of the job, and the progress of its training."""
        stage = job.status.stage
        for name, task in self._tasks.items():
            if name != stage and not self._progress.tasks[task].finished:
                self._progress.update(task, total=1, completed=1, note="")
        if stage not in _STAGES:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(_STAGES[stage], total=None, note="")
        if progress and stage == Stage.TRAIN:
            loss = "" if progress.loss is None else f"loss {progress.loss:.4f}"
            task, note = self._tasks[stage], f"{progress.text}  {loss}"
            self._progress.update(task, total=progress.steps, completed=progress.step, note=note)

    def report(self, event: Event) -> None:
        """Print an event."""
        reason = Text(event.reason, style="yellow" if event.type == "Warning" else "green")
        self._progress.console.print(reason, Text(event.message))


def format_evaluation(evaluation: EvaluationSummary) -> Table:
    """Return the table of an evaluation."""
    title = f"Evaluation on {evaluation.examples} held-out examples (gain with its 95 % interval)"
    table = Table(title=title, title_justify="left")
    for name in ("metric", "base", "tuned", "gain", "interval", "verdict"):
        table.add_column(name, justify="left" if name in ("metric", "verdict") else "right")
    for metric in evaluation.metrics:
        interval = f"{metric.gain_low:.3f} to {metric.gain_high:.3f}"
        figures = (f"{value:.3f}" for value in (metric.base, metric.tuned, metric.gain))
        table.add_row(metric.metric, *figures, interval, metric.verdict)
    return table


def format_dataset(dataset: DatasetSummary) -> Table:
    """Return the table of what the data check counted."""
    table = Table(title="Data", title_justify="left", show_header=False)
    learned = f", {dataset.unlearned_answers} that cannot be learned" if dataset.unlearned_answers else ""
    rows = {
        "format": dataset.format or "several",
        "examples": f"{dataset.train_examples} to train on, {dataset.heldout_examples} held out",
        "answers": f"{dataset.learned_answers} to learn{learned}" if dataset.learned_answers is not None else "",
        "tokens": f"{dataset.train_tokens} in all, {dataset.longest_example_tokens} in the longest example",
        "cut": f"{dataset.truncated_examples} examples are longer than hyperparameters.maxLength",
        "duplicates": str(dataset.duplicates),
    } | {f"warning {kind}": f"{count} rows" for kind, count in (dataset.warnings or {}).items()}
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    return table
