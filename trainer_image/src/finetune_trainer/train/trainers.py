"""TRL's trainers for examples that are token ids already: they render and tokenize nothing themselves.

Each replaces the one method with which its parent prepares a dataset. TRL takes seconds to import, so a trainer is
imported and derived when it is needed.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from finetune_api.training import MethodName


def derive_trainer(method: MethodName) -> tuple[Any, Any]:
    """Return the trainer class and the configuration class of a method.

    The trainers read the columns of `load_examples`.
    """
    match method:
        case "sft":
            from trl import SFTConfig, SFTTrainer

            return _derive(SFTTrainer), SFTConfig
        case "dpo":
            from trl import DPOConfig, DPOTrainer

            return _derive(DPOTrainer, _prepare_dataset=_keep_dataset), DPOConfig
        case "kto":
            from trl import KTOConfig, KTOTrainer

            return _derive(KTOTrainer, _prepare_dataset=_add_mismatched), KTOConfig
        case "orpo":
            from trl.experimental.orpo import ORPOConfig, ORPOTrainer

            return _derive(ORPOTrainer, tokenize_row=_build_orpo_row), ORPOConfig
        case "grpo":
            from trl import GRPOConfig, GRPOTrainer

            return _derive(GRPOTrainer, _tokenize_prompts=_read_prompts), GRPOConfig
        case "reward":
            from trl import RewardConfig, RewardTrainer

            return _derive(RewardTrainer, _prepare_dataset=_keep_dataset), RewardConfig


def _derive(parent: Any, **methods: Callable[..., Any]) -> Any:
    return type(f"Token{parent.__name__}", (FirstStepLearns, parent), methods)


class FirstStepLearns:
    """Starts the warm-up of the learning rate above zero; with that of transformers the first step has no effect."""

    args: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the scheduler of transformers with another warm-up."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        warmup = self.args.get_warmup_steps(num_training_steps)
        scheduler.lr_lambdas = [partial(scale_rate, warmup, scale) for scale in scheduler.lr_lambdas]
        for group, base, scale in zip(
            scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = base * scale(0)
        return scheduler


def scale_rate(warmup: int, scale: Callable[[int], float], step: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0; after the warm-up it is that of `scale`."""
    return (step + 1) / (warmup + 1) if step < warmup else scale(step)


def _keep_dataset(_: Any, dataset: Any, *__: Any) -> Any:
    return dataset


def _add_mismatched(_: Any, dataset: Any, __: Any, args: Any, ___: Any) -> Any:
    return dataset.map(add_mismatched_completions, batched=True, batch_size=args.per_device_train_batch_size)


def add_mismatched_completions(examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Add the column `KL_completion_ids` to a micro-batch: answers with which KTO compares, each to another prompt.

    It is the completion of the nearest example before with another prompt. TRL takes that of the example before, which
    may be the other answer to the same prompt. If all examples have the same prompt, so does this.
    """
    prompts, completions = examples["prompt_ids"], examples["completion_ids"]
    count = len(prompts)
    distances = [
        next((step for step in range(1, count) if prompts[index - step] != prompts[index]), 1) for index in range(count)
    ]
    return examples | {"KL_completion_ids": [completions[index - step] for index, step in enumerate(distances)]}


def _build_orpo_row(_: Any, feature: dict[str, Any], __: Any = None) -> dict[str, Any]:
    """Return the columns that ORPO's collator reads."""
    prompt = feature["prompt_ids"]
    columns: dict[str, Any] = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for name in ("chosen", "rejected"):
        answer = feature[f"{name}_ids"]
        columns[f"{name}_input_ids"] = prompt + answer
        columns[f"{name}_attention_mask"] = [1] * (len(prompt) + len(answer))
        columns[f"{name}_labels"] = [-100] * len(prompt) + answer
    return columns


def _read_prompts(_: Any, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
    """Return the ids of prompts, which are JSON because GRPO takes only texts and messages for prompts."""
    return [json.loads(prompt) for prompt in prompts], None, {}
