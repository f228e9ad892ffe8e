"""The training itself, in each of its processes. Read from top to bottom."""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from finetune_api.artifact import Artifact, ArtifactKind, describe_artifact
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile, read_job_file
from finetune_api.contract.reports import StageReport
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import TrainingSummary

from finetune_trainer.export.model_card import Trained, read_license, write_card
from finetune_trainer.failures import StageError, diagnose
from finetune_trainer.fetch.sources import find_model
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.checkpoints import forget, is_damage, is_whole, newest_whole, step_of
from finetune_trainer.train.history import write_history
from finetune_trainer.train.micro_batch import choose_batch, lower_micro_batch
from finetune_trainer.train.warm_start import load_earlier_adapter, merge_earlier_adapter

_LOG = logging.getLogger(__name__)


def train(job: JobFile, directory: JobDirectory, attempt: int, metrics_port: int, scratch: Path) -> StageReport:
    """Train from the newest whole checkpoint to the last step, and write the adapter or the model.

    Args:
        job: the FineTuneJob.
        directory: its directory.
        attempt: number of the attempt.
        metrics_port: port for Prometheus, on the first process.
        scratch: an empty directory for temporary files.

    Raises:
        StageError: it cannot, or was stopped before the last step.
    """
    began = time.monotonic()
    from accelerate import PartialState
    from transformers import set_seed

    from finetune_trainer.train.callback import Follower
    from finetune_trainer.train.examples import load_examples
    from finetune_trainer.train.methods import build_trainer
    from finetune_trainer.train.metrics import serve_metrics
    from finetune_trainer.train.models import build_peft_config, load_model
    from finetune_trainer.train.tracking import build_trackers

    spec = job.spec
    processes = PartialState(cpu=spec.compute.resources.gpus == 0)
    is_main = processes.is_main_process
    if is_main:
        serve_metrics(metrics_port)
    chosen = choose_batch(spec, directory)
    model_directory = find_model(spec.model, directory.root, weights=True)
    model_directory = merge_earlier_adapter(job, model_directory, directory, processes)
    tokenizer = Tokenizer(model_directory, spec.model.uri)
    # TRL makes the adapter before the trainer seeds anything.
    set_seed(spec.hyperparameters.seed)
    follower = Follower(began)
    model = load_model(spec, model_directory)
    adapted = load_earlier_adapter(job, model, model_directory, directory)
    trainer = build_trainer(
        spec,
        chosen,
        adapted or model,
        None if adapted else build_peft_config(spec),
        tokenizer.tokenizer,
        load_examples(directory.train_data, spec, tokenizer, scratch),
        directory.checkpoints,
        [follower, *(build_trackers(job, directory, attempt) if is_main else [])],
    )
    resume = newest_whole(directory.checkpoints)
    _remove_broken(directory.checkpoints, is_main=is_main)
    processes.wait_for_everyone()
    _run(trainer, resume, is_main=is_main)
    state = trainer.state
    is_done = state.global_step >= state.max_steps or (spec.hyperparameters.early_stopping and not follower.stopped)
    if not is_done:
        raise StageError(
            Reason.RETRYING,
            f"stopped at step {state.global_step} of {state.max_steps}; the next attempt goes on from there",
        )
    artifact = _save(trainer, tokenizer.tokenizer, job, directory, attempt, is_main=is_main)
    losses = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
    summary = TrainingSummary(
        steps=state.global_step,
        resumed_from_step=step_of(resume) if resume else 0,
        loss=round(losses[-1][1], 6),
        seconds=round(follower.seconds, 1),
        startup_seconds=round(follower.startup_seconds, 1),
        micro_batch_size=chosen.micro_batch_size,
        stopped_early=state.global_step < state.max_steps,
    )
    if is_main:
        write_history(directory.history, state.log_history)
        write_card(job, directory, Trained(chosen, summary, artifact, losses, read_license(model_directory)))
    return StageReport(
        outcome="Succeeded",
        reason=Reason.SUCCEEDED,
        message=f"{state.global_step} steps",
        training=summary,
        artifact=artifact,
    )


def _run(trainer: Any, resume: Path | None, *, is_main: bool) -> None:
    """Train; a checkpoint that cannot be read is not tried again, and the next attempt takes the one before."""
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except Exception as error:
        if resume is None or not is_damage(error):
            raise
        if is_main:
            forget(resume)
        raise StageError(
            Reason.CHECKPOINT_DAMAGED,
            f"{resume.name} cannot be read ({error}): the next attempt goes on from the one before; check the volume",
        ) from error


def _save(
    trainer: Any, tokenizer: Any, job: JobFile, directory: JobDirectory, attempt: int, *, is_main: bool
) -> Artifact:
    """Write what was trained; return what it is."""
    from finetune_trainer.train.models import save_result

    kind: ArtifactKind = "Model" if job.spec.produces_model else "Adapter"
    target = directory.model(attempt) if kind == "Model" else directory.adapter(attempt)
    save_result(trainer, tokenizer, job, target, is_main=is_main)
    uri = f"{job.output_uri}/{kind.lower()}/{attempt}"
    return describe_artifact(target, uri, kind)


def _remove_broken(checkpoints: Path, *, is_main: bool) -> None:
    """Remove what an interrupted save left, so that it neither takes room nor a place among those kept."""
    for path in checkpoints.glob("checkpoint-*"):
        if is_main and not is_whole(path):
            _LOG.warning("%s is not whole and is removed", path.name)
            shutil.rmtree(path)


def main(arguments: list[str] | None = None) -> None:
    """Run in one process of the training; the first on this node that ends writes the report.

    Args:
        arguments: of the command line; by default this process's.
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
    _block_unused(job.spec)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            report = train(job, directory, options.attempt, options.metrics_port, Path(scratch))
    except Exception as error:  # noqa: BLE001 - every failure becomes a report
        failure = diagnose(error, Reason.TRAINING_FAILED)
        if failure is not error:
            _LOG.exception("the training failed")
        if failure.reason in (Reason.OUT_OF_MEMORY, Reason.GPU_OUT_OF_MEMORY):
            lower_micro_batch(job.spec, directory)
        report = StageReport(outcome="Failed", reason=failure.reason, message=str(failure)[:1024])
    _write_once(options.report, report)
    sys.exit(report.exit_code)


def _block_unused(spec: FineTuneJobSpec) -> None:
    """Hide from transformers, PEFT and accelerate what this training does not use.

    They import whatever is installed, which takes a third of the time to the first step.
    """
    used = {"bitsandbytes": spec.adapter.qlora, "wandb": spec.tracking and spec.tracking.wandb, "sklearn": None}
    for name, use in used.items():
        if not use:
            sys.modules[name] = None  # type: ignore[assignment]


def _write_once(path: Path, report: StageReport) -> None:
    """Let the first report stand: when one process fails, the others fail after it with less to say."""
    try:
        with path.open("x") as file:
            file.write(report.model_dump_json(by_alias=True, exclude_none=True))
    except FileExistsError:
        pass


if __name__ == "__main__":
    main()
