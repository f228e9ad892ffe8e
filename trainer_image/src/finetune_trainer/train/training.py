"""The training itself, which runs in every training process."""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.artifact import Artifact, ArtifactKind, describe_artifact
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile, read_job_file
from finetune_api.contract.reports import StageReport
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters, TrainingSummary

from finetune_trainer.export.model_card import TrainingResult, read_license, write_card
from finetune_trainer.failures import StageError, diagnose
from finetune_trainer.fetch.sources import find_model
from finetune_trainer.prepared import read_chat_template
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.checkpoints import (
    find_newest_complete,
    indicates_damage,
    is_complete,
    parse_step,
    remove_mark,
)
from finetune_trainer.train.examples import load_examples
from finetune_trainer.train.history import write_history
from finetune_trainer.train.learning import explain_no_effect, is_zero_adapter
from finetune_trainer.train.methods import build_trainer
from finetune_trainer.train.metrics import serve_metrics
from finetune_trainer.train.micro_batch import load_hyperparameters, lower_micro_batch
from finetune_trainer.train.models import build_peft_config, load_model, save_result
from finetune_trainer.train.warm_start import load_parent_adapter, merge_parent_adapter

if TYPE_CHECKING:
    from finetune_trainer.train.callback import TrainingCallback

_LOG = logging.getLogger(__name__)


def train(job: JobFile, directory: JobDirectory, attempt: int, metrics_port: int, scratch: Path) -> StageReport:
    """Train from the newest complete checkpoint to the last step, and save the adapter or the model.

    Args:
        job: the FineTuneJob.
        directory: the directory of the FineTuneJob.
        attempt: number of the attempt.
        metrics_port: port for Prometheus; only the main process serves metrics.
        scratch: an empty directory for temporary files.

    Raises:
        StageError: the training fails, or was stopped before the last step.
    """
    started = time.monotonic()
    from accelerate import PartialState
    from transformers import set_seed

    from finetune_trainer.train.callback import TrainingCallback
    from finetune_trainer.train.tracking import build_trackers

    processes = PartialState(cpu=job.spec.compute.resources.gpus == 0)
    is_main = processes.is_main_process
    if is_main:
        serve_metrics(metrics_port)
    chosen = load_hyperparameters(job.spec, directory)
    base_model = find_model(job.spec.model, directory.root, weights=True)
    model_directory = merge_parent_adapter(job, base_model, directory, processes)
    tokenizer = _open_tokenizer(job, model_directory, directory)
    set_seed(job.spec.hyperparameters.seed)  # TRL creates the adapter before its trainer sets the seed.
    callback = TrainingCallback(started)
    model, peft_config = _load_model(job, model_directory, directory)
    examples = load_examples(directory.train_data, job.spec, tokenizer, scratch)
    callbacks = [callback, *(build_trackers(job, directory, attempt) if is_main else [])]
    trainer = build_trainer(
        job.spec, chosen, model, peft_config, tokenizer.tokenizer, examples, directory.checkpoints, callbacks
    )
    checkpoint = find_newest_complete(directory.checkpoints)
    _delete_incomplete(directory.checkpoints, processes)
    _run_trainer(trainer, checkpoint, is_main=is_main)
    _check_finished(trainer.state, job.spec, callback)
    artifact = _save_artifact(trainer, tokenizer, job, directory, attempt, is_main=is_main)
    summary = _summarize(trainer.state, chosen, callback, checkpoint)
    if is_main:
        write_history(directory.history, trainer.state.log_history)
        license_id = read_license(model_directory)
        write_card(job, directory, TrainingResult(chosen, summary, artifact, _read_losses(trainer.state), license_id))
    message = f"{summary.steps} steps"
    return StageReport(
        outcome="Succeeded", reason=Reason.SUCCEEDED, message=message, training=summary, artifact=artifact
    )


def _open_tokenizer(job: JobFile, model_directory: Path, directory: JobDirectory) -> Tokenizer:
    """Return the tokenizer with the chat template and the date of `prepare`."""
    template = read_chat_template(job, directory)
    return Tokenizer(model_directory, job.spec.model.uri, directory.read_template_date(), template)


def _load_model(job: JobFile, model_directory: Path, directory: JobDirectory) -> tuple[Any, Any]:
    """Return the model to train, and the configuration of a new adapter; None if the model needs no new adapter."""
    model = load_model(job.spec, model_directory)
    model_with_adapter = load_parent_adapter(job, model, model_directory, directory)
    if model_with_adapter is not None:
        return model_with_adapter, None
    return model, build_peft_config(job.spec, model)


def _delete_incomplete(checkpoints: Path, processes: Any) -> None:
    """Delete incomplete checkpoints, which would count toward the checkpoints to keep; all processes wait for that."""
    if processes.is_main_process:
        for path in checkpoints.glob("checkpoint-*"):
            if not is_complete(path):
                _LOG.warning("deleting %s: it is incomplete", path.name)
                shutil.rmtree(path)
    processes.wait_for_everyone()


def _run_trainer(trainer: Any, checkpoint: Path | None, *, is_main: bool) -> None:
    """Train from a checkpoint, or from the start.

    Raises:
        StageError: the checkpoint is damaged; the next attempt resumes from the previous one.
    """
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Exception as error:
        if checkpoint is None or not indicates_damage(error):
            raise
        if is_main:
            remove_mark(checkpoint)
        raise StageError(
            Reason.CHECKPOINT_DAMAGED,
            f"{checkpoint.name} cannot be read ({error}): check the volume; the next attempt resumes from the previous"
            " checkpoint",
        ) from error


def _check_finished(state: Any, spec: FineTuneJobSpec, callback: "TrainingCallback") -> None:
    """Raise a StageError if the training was stopped or had no effect; early stopping counts as finished."""
    stopped_early = spec.hyperparameters.early_stopping and not callback.stopped
    if state.global_step < state.max_steps and not stopped_early:
        raise StageError(
            Reason.RETRYING,
            f"stopped at step {state.global_step} of {state.max_steps}; the next attempt resumes from there",
        )
    if problem := explain_no_effect(state.log_history):
        raise StageError(Reason.NOTHING_LEARNED, problem)


def _save_artifact(
    trainer: Any, tokenizer: Tokenizer, job: JobFile, directory: JobDirectory, attempt: int, *, is_main: bool
) -> Artifact:
    kind: ArtifactKind = "Model" if job.spec.produces_model else "Adapter"
    target = directory.model(attempt) if kind == "Model" else directory.adapter(attempt)
    save_result(trainer, tokenizer.tokenizer, job, target, is_main=is_main)
    if kind == "Adapter" and is_zero_adapter(target):
        raise StageError(
            Reason.NOTHING_LEARNED,
            "the adapter is still zero: raise hyperparameters.learningRate, or train more steps",
        )
    return describe_artifact(target, f"{job.output_uri}/{kind.lower()}/{attempt}", kind)


def _summarize(
    state: Any, chosen: ChosenHyperparameters, callback: "TrainingCallback", checkpoint: Path | None
) -> TrainingSummary:
    return TrainingSummary(
        steps=state.global_step,
        resumed_from_step=parse_step(checkpoint) if checkpoint else 0,
        loss=round(_read_losses(state)[-1][1], 6),
        seconds=round(callback.seconds, 1),
        startup_seconds=round(callback.startup_seconds, 1),
        micro_batch_size=chosen.micro_batch_size,
        stopped_early=state.global_step < state.max_steps,
    )


def _read_losses(state: Any) -> list[tuple[int, float]]:
    """Return the step and the training loss of each logged step."""
    return [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]


def main(arguments: list[str] | None = None) -> None:
    """Train in this process; the first process of the node that ends writes the report.

    Args:
        arguments: command-line arguments; by default those of this process.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    job = read_job_file(options.job)
    directory = JobDirectory.of(job, options.root)
    _block_unused_imports(job.spec)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            report = train(job, directory, options.attempt, options.metrics_port, Path(scratch))
    except Exception as error:  # noqa: BLE001 - every failure becomes a report
        failure = diagnose(error, Reason.TRAINING_FAILED)
        if failure is not error:
            _LOG.exception("the training failed with an unexpected error")
        if failure.reason in (Reason.OUT_OF_MEMORY, Reason.GPU_OUT_OF_MEMORY):
            lower_micro_batch(job.spec, directory)
        report = failure.to_report()
    _write_first_report(options.report, report)
    sys.exit(report.exit_code)


def _block_unused_imports(spec: FineTuneJobSpec) -> None:
    """Prevent transformers, PEFT and accelerate from importing packages that this training does not use.

    They import every optional package that is installed, which takes a third of the time to the first step.
    """
    used = {"bitsandbytes": spec.adapter.qlora, "wandb": spec.tracking and spec.tracking.wandb, "sklearn": None}
    for name, use in used.items():
        if not use:
            sys.modules[name] = None  # type: ignore[assignment]


def _write_first_report(path: Path, report: StageReport) -> None:
    """Write the report unless another process did: the first failure is the cause of those in the other processes."""
    try:
        with path.open("x") as file:
            file.write(report.model_dump_json(by_alias=True, exclude_none=True))
    except FileExistsError:
        pass


if __name__ == "__main__":
    main()
