"""What the prepare stage decides for later stages, and what it warns of about a whole job."""

from datetime import date
from pathlib import Path

from finetune_api.contract.jobfile import JobDirectory
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters
from finetune_pod.template_file import TemplateFile

from finetune_trainer.prepare.packing_check import measure_leak
from finetune_trainer.prepare.row_issues import RowIssues
from finetune_trainer.prepared import write_hyperparameters

_DATE_WARNING = (
    "the model's chat template prints today's date: training and evaluation use {}, the server the date of each"
    " request; a system message may say which date applies"
)
_HELDOUT_WARNING = (
    "only {} examples are evaluated, but a gate needs {}: without more it is inconclusive and the result is not served;"
    " add examples, raise dataset.holdout or evaluation.maxExamples, or lower evaluation.minExamples"
)


def explain_no_packing(spec: FineTuneJobSpec, model_directory: Path) -> str:
    """Return why the model cannot train on packed examples; empty if it can, or if the job does not ask for it."""
    if spec.method.sft is None or spec.method.sft.packing is False:
        return ""
    leak = measure_leak(model_directory)
    if leak == 0:
        return ""
    cause = "it cannot be checked whether this architecture keeps packed examples apart"
    if leak is not None:
        cause = f"this architecture mixes packed examples: one changes the logits of the next one by {leak:.2g}"
    return f"examples are trained without packing, since {cause}"


def write_decisions(
    directory: JobDirectory,
    hyperparameters: ChosenHyperparameters,
    template_date: date | None,
    template: TemplateFile | None,
) -> None:
    """Write what later stages must know."""
    write_hyperparameters(directory, hyperparameters)
    if template:
        directory.chat_template.write_text(template.text, encoding="utf-8")
    if template_date:
        directory.template_date.write_text(template_date.isoformat())


def add_warnings(
    spec: FineTuneJobSpec,
    warnings: RowIssues,
    heldout_examples: int,
    problems: dict[str, str],
    template_date: date | None,
) -> None:
    """Warn about problems of the model by their kind, empty if there is none, the date, and few held-out examples."""
    evaluation = spec.evaluation
    evaluated = min(heldout_examples, evaluation.max_examples)
    for kind, problem in problems.items():
        if problem:
            warnings.add("all", kind, problem)
    if template_date:
        warnings.add("all", "date", _DATE_WARNING.format(template_date))
    if evaluated < evaluation.min_examples:
        warnings.add("all", "heldout", _HELDOUT_WARNING.format(evaluated, evaluation.min_examples))
