"""The training itself, one process for each device, started by `accelerate launch`. Read from top to bottom."""

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.digest import digest_directory
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobfile import JobDirectory, JobFile, read_job_file
from finetune_api.reports import Artifact, ExitCode, StageReport, TrainingSummary

from finetune_trainer.base_model import LORA_MODULES, Tokenizer
from finetune_trainer.checkpoints import newest_whole, step_of
from finetune_trainer.dataset import read_examples
from finetune_trainer.failures import StageError, diagnose
from finetune_trainer.schedule import choose_batches, choose_epochs
from finetune_trainer.sources import below, find_model

_LOG = logging.getLogger(__name__)


def train(job: JobFile, root: Path, attempt: int, metrics_port: int) -> StageReport:
    """Train from the newest whole checkpoint to the last step, and write the adapter.

    Raises:
        StageError: it cannot, or was stopped before the last step.
    """
    from accelerate import PartialState

    from finetune_trainer.callback import Follower
    from finetune_trainer.metrics import serve_metrics

    processes = PartialState(cpu=job.spec.compute.resources.gpus == 0)
    is_main = processes.is_main_process
    if is_main:
        serve_metrics(metrics_port)
    directory = JobDirectory.of(job)
    checkpoints = below(root, directory.checkpoints)
    model_directory = find_model(job.spec.model, root, weights=True)
    tokenizer = Tokenizer(model_directory, job.spec.model.uri)
    examples = _tokenize(below(root, directory.train_data), tokenizer, job.spec.hyperparameters.max_length)
    follower = Follower()
    trainer = _build_trainer(job.spec, model_directory, tokenizer, examples, checkpoints, follower)
    resume = newest_whole(checkpoints)
    _remove_broken(checkpoints, is_main=is_main)
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    state = trainer.state
    if state.global_step < state.max_steps:
        raise StageError(
            ExitCode.STOPPED,
            Reason.RETRYING,
            f"stopped at step {state.global_step} of {state.max_steps}; the next attempt goes on from there",
        )
    adapter = below(root, directory.adapter(attempt))
    if is_main:
        _save_adapter(trainer, job, adapter)
    processes.wait_for_everyone()
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return StageReport(
        outcome="Succeeded",
        reason=Reason.SUCCEEDED,
        message=f"{state.global_step} steps",
        training=TrainingSummary(
            steps=state.global_step,
            resumed_from_step=step_of(resume) if resume else 0,
            loss=round(losses[-1], 6),
            seconds=round(time.monotonic() - began, 1),
        ),
        artifact=Artifact(uri=f"{job.output_uri}/adapter/{attempt}", digest=digest_directory(adapter)),
    )


def _tokenize(path: Path, tokenizer: Tokenizer, longest: int) -> Any:
    """Return a dataset of token ids and labels; a conversation that is too long loses its tail."""
    from datasets import Dataset

    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for example in read_examples(path):
        ((ids, labels),) = tokenizer.encode_all([tokenizer.render(example)])
        rows["input_ids"].append(ids[:longest])
        rows["labels"].append(labels[:longest].tolist())
    return Dataset.from_dict(rows)


def _build_trainer(
    spec: FineTuneJobSpec,
    model_directory: Path,
    tokenizer: Tokenizer,
    examples: Any,
    checkpoints: Path,
    follower: Any,
) -> Any:
    """Return TRL's trainer, set up as the job says."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PrinterCallback, set_seed
    from trl import SFTTrainer

    lora = spec.adapter.lora
    if lora is None:
        raise StageError(ExitCode.BAD_CONFIG, Reason.INVALID_SPEC, "adapter.lora is needed")
    # TRL makes the adapter before the trainer seeds anything.
    set_seed(spec.hyperparameters.seed)
    model = AutoModelForCausalLM.from_pretrained(
        model_directory,
        dtype=torch.bfloat16 if spec.compute.resources.gpus else torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
    )
    _check_modules(model, spec.model.uri)
    trainer = SFTTrainer(
        model=model,
        args=_build_arguments(spec, len(examples), checkpoints),
        train_dataset=examples,
        processing_class=tokenizer.tokenizer,
        peft_config=LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(LORA_MODULES),
            task_type="CAUSAL_LM",
        ),
        callbacks=[follower],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _build_arguments(spec: FineTuneJobSpec, examples: int, checkpoints: Path) -> Any:
    """Return TRL's settings for this many examples."""
    from trl import SFTConfig

    values, gpus, sft = spec.hyperparameters, spec.compute.resources.gpus, spec.method.sft
    if sft is None:
        raise StageError(ExitCode.BAD_CONFIG, Reason.INVALID_SPEC, "method.sft is needed")
    batches = choose_batches(spec, max(gpus, 1))
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=choose_epochs(spec, examples),
        per_device_train_batch_size=batches.micro_batch,
        gradient_accumulation_steps=batches.accumulation,
        learning_rate=values.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=values.warmup_ratio,
        weight_decay=values.weight_decay,
        max_length=values.max_length,
        packing=sft.packing,
        packing_strategy="bfd",
        save_strategy="steps",
        save_steps=spec.compute.checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        seed=values.seed,
        data_seed=values.seed,
        bf16=gpus > 0,
        use_cpu=gpus == 0,
        gradient_checkpointing=gpus > 0,
        dataloader_pin_memory=gpus > 0,
    )


def _check_modules(model: Any, uri: str) -> None:
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [name for name in LORA_MODULES if name not in names]
    if missing:
        raise StageError(
            ExitCode.BAD_CONFIG,
            Reason.MODEL_UNSUPPORTED,
            f"{uri} has no layers {', '.join(missing)}: LoRA is trained on {', '.join(LORA_MODULES)}",
        )


def _remove_broken(checkpoints: Path, *, is_main: bool) -> None:
    """Remove what an interrupted save left, so that it neither takes room nor a place among those kept."""
    from finetune_trainer.checkpoints import is_whole

    for path in checkpoints.glob("checkpoint-*"):
        if is_main and not is_whole(path):
            _LOG.warning("%s is not whole and is removed", path.name)
            shutil.rmtree(path)


def _save_adapter(trainer: Any, job: JobFile, adapter: Path) -> None:
    """Write the adapter, whole or not at all, with its base model's URI instead of a path in this pod."""
    partial = adapter.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    trainer.model.save_pretrained(partial, safe_serialization=True)
    (partial / "README.md").unlink(missing_ok=True)
    config_path = partial / "adapter_config.json"
    config = json.loads(config_path.read_text())
    config |= {
        "base_model_name_or_path": job.spec.model.uri,
        "revision": job.spec.model.revision,
        "target_modules": sorted(config["target_modules"]),
    }
    config_path.write_text(json.dumps(config, indent=1, sort_keys=True))
    shutil.rmtree(adapter, ignore_errors=True)
    partial.rename(adapter)


def main() -> None:
    """Run in one process of the training; the first process writes the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--report", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    code = ExitCode.OK
    try:
        job = read_job_file(arguments.job)
        report = train(job, arguments.root, arguments.attempt, arguments.metrics_port)
    except Exception as error:  # noqa: BLE001 - every failure becomes a report
        failure = diagnose(error, Reason.TRAINING_FAILED)
        if failure is not error:
            _LOG.exception("the training failed")
        code = failure.code
        report = StageReport(outcome="Failed", reason=failure.reason, message=str(failure)[:1024])
    _write_once(arguments.report, report)
    sys.exit(code)


def _write_once(path: Path, report: StageReport) -> None:
    """Let the first report stand: when one process fails, the others fail after it with less to say."""
    try:
        with path.open("x") as file:
            file.write(report.model_dump_json(by_alias=True, exclude_none=True))
    except FileExistsError:
        pass


if __name__ == "__main__":
    main()
