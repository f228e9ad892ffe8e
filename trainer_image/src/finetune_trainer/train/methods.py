"""Builds TRL's trainer for each method. TRL and torch take seconds to import, so functions import them when needed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_api.compute import Compute
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.graders import Grader
from finetune_api.summaries import ChosenHyperparameters
from finetune_pod.grading import grade
from finetune_pod.turns import strip_thought

from finetune_trainer.train.examples import split_validation
from finetune_trainer.train.trainers import derive_trainer


def build_trainer(
    spec: FineTuneJobSpec,
    chosen: ChosenHyperparameters,
    model: Any,
    peft_config: Any,
    tokenizer: Any,
    examples: Any,
    checkpoints: Path,
    callbacks: list[Any],
) -> Any:
    """Return the trainer of the job's method.

    Args:
        spec: the spec of the job.
        chosen: its hyperparameters.
        model: the loaded model, with or without an adapter.
        peft_config: the configuration of a new adapter; None if the model has one, or is trained without.
        tokenizer: the tokenizer of the model.
        examples: the dataset from `load_examples`.
        checkpoints: directory for checkpoints.
        callbacks: callbacks of transformers.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback

    stopping = spec.hyperparameters.early_stopping
    inputs: dict[str, Any] = {"train_dataset": examples}
    if stopping:
        train, validation = split_validation(examples, stopping.fraction, spec.hyperparameters.seed)
        inputs = {"train_dataset": train, "eval_dataset": validation}
        callbacks = [*callbacks, EarlyStoppingCallback(stopping.patience)]
    trainer_class, config_class = derive_trainer(spec.method.name)
    if spec.method.grpo:
        inputs["reward_funcs"] = [_build_reward(grader) for grader in spec.method.grpo.graders]
    arguments = _build_common_arguments(spec, chosen, checkpoints) | _build_method_arguments(spec, chosen)
    trainer = trainer_class(
        model=model,
        args=config_class(**arguments),
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
        **inputs,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _build_common_arguments(spec: FineTuneJobSpec, chosen: ChosenHyperparameters, checkpoints: Path) -> dict[str, Any]:
    """Return the training arguments of all methods."""
    values, gpus = spec.hyperparameters, spec.compute.resources.gpus
    stopping = values.early_stopping
    schedules = {"Cosine": "cosine", "Linear": "linear", "Constant": "constant_with_warmup"}
    arguments: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "num_train_epochs": chosen.epochs,
        "per_device_train_batch_size": chosen.micro_batch_size,
        "per_device_eval_batch_size": chosen.micro_batch_size,
        "gradient_accumulation_steps": chosen.gradient_accumulation_steps,
        "learning_rate": chosen.learning_rate,
        "lr_scheduler_type": schedules[values.lr_scheduler],
        "warmup_steps": values.warmup_ratio,
        "weight_decay": values.weight_decay,
        "max_grad_norm": values.max_grad_norm,
        "neftune_noise_alpha": values.neftune_noise_alpha,
        "save_strategy": "steps",
        "save_steps": spec.compute.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": values.seed,
        "data_seed": values.seed,
        "bf16": gpus > 0,
        "use_cpu": gpus == 0,
        "gradient_checkpointing": gpus > 0,
        "dataloader_pin_memory": gpus > 0,
    }
    if stopping:
        arguments |= {
            "eval_strategy": "steps",
            "eval_steps": stopping.eval_steps,
            "save_steps": stopping.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
            "restore_callback_states_from_checkpoint": True,
        }
    return arguments | _build_parallelism_arguments(spec.compute)


def _build_parallelism_arguments(compute: Compute) -> dict[str, Any]:
    """Return the training arguments that distribute the model over the processes."""
    match compute.parallelism:
        case "DDP":
            # Adapters have no unused parameters, and searching for them costs a pass over the autograd graph.
            return {"ddp_find_unused_parameters": False}
        case "FSDP2":
            return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}
        case stage:
            return {
                "deepspeed": {
                    "zero_optimization": {"stage": int(stage.removeprefix("ZeRO"))},
                    "train_batch_size": "auto",
                    "train_micro_batch_size_per_gpu": "auto",
                    "gradient_accumulation_steps": "auto",
                    "gradient_clipping": "auto",
                    "bf16": {"enabled": "auto"},
                }
            }


def _build_method_arguments(spec: FineTuneJobSpec, chosen: ChosenHyperparameters) -> dict[str, Any]:
    """Return the training arguments of the job's method only."""
    method, max_length = spec.method, spec.hyperparameters.max_length
    if method.sft:
        return {
            "max_length": max_length,
            "packing": chosen.packing,
            "packing_strategy": "bfd",
            "label_smoothing_factor": spec.hyperparameters.label_smoothing,
        }
    if method.dpo:
        return {"max_length": max_length, "beta": method.dpo.beta, "label_smoothing": method.dpo.label_smoothing}
    if method.kto:
        return {
            "max_length": max_length,
            "beta": method.kto.beta,
            "desirable_weight": method.kto.desirable_weight,
            "undesirable_weight": method.kto.undesirable_weight,
        }
    if method.orpo:
        return {"max_length": max_length, "beta": method.orpo.beta, "remove_unused_columns": False}
    if method.grpo:
        return {
            "num_generations": method.grpo.num_generations,
            "max_completion_length": method.grpo.max_completion_length,
            "temperature": method.grpo.temperature,
            "beta": method.grpo.beta,
        }
    return {
        "max_length": max_length,
        "center_rewards_coefficient": (method.reward.center_rewards_coefficient if method.reward else 0) or None,
    }


def _build_reward(grader: Grader) -> Callable[..., list[float]]:
    """Return a grader as a reward function of TRL, called with the completions as text and the reference column."""

    def reward(completions: list[str], reference: list[str], **_: Any) -> list[float]:
        return [
            grade(grader, strip_thought(completion), json.loads(encoded))
            for completion, encoded in zip(completions, reference, strict=True)
        ]

    reward.__name__ = grader.name
    return reward
