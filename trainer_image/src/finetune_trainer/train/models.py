"""Loads the model for training, optionally quantized, freezes layers, configures the adapter, and saves the result."""

import json
import shutil
from pathlib import Path
from typing import Any

from finetune_api.contract.jobfile import JobFile
from finetune_api.finetunejob import FineTuneJobSpec

from finetune_trainer.loading import import_peft, load_language_model
from finetune_trainer.train.target_modules import choose_target_modules, find_linear_layers

_EXPERTS = ("num_local_experts", "n_routed_experts", "moe_num_experts")


def load_model(spec: FineTuneJobSpec, directory: Path) -> Any:
    """Load the base model for training. `prepare` has checked that it has the layers to train.

    Args:
        spec: the spec of the job.
        directory: the directory of the model.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    on_gpu = spec.compute.resources.gpus > 0
    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if on_gpu or spec.adapter.qlora else torch.float32,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if spec.adapter.qlora:
        # As in the QLoRA paper (arXiv:2305.14314): NF4, double quantization, and computation in bfloat16.
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if spec.method.reward:
        model = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=1, **options)
    else:
        model = load_language_model(directory, **options)
    if spec.adapter.full and spec.adapter.full.layers:
        _freeze_other_layers(model, spec.adapter.full.layers)
    name_experts(model.config)
    return model


def name_experts(config: Any) -> None:
    """Add the number of experts of a mixture under the name that TRL reads, where the model has another name for it."""
    text = config.get_text_config()
    number = next((getattr(text, name, None) for name in _EXPERTS if getattr(text, name, None)), None)
    if number and getattr(text, "num_experts", None) is None:
        text.num_experts = number


def build_peft_config(spec: FineTuneJobSpec, model: Any) -> Any:
    """Return the configuration of a new adapter of a model; None if the weights of the model are trained."""
    low_rank = spec.adapter.low_rank
    if low_rank is None:
        return None
    target_modules, _ = choose_target_modules(spec, find_linear_layers(model), model.config.architectures or ())
    return import_peft().LoraConfig(
        r=low_rank.rank,
        lora_alpha=low_rank.alpha,
        lora_dropout=low_rank.dropout,
        target_modules=target_modules,
        use_dora=spec.adapter.dora is not None,
        use_rslora=spec.adapter.rslora is not None,
        task_type="SEQ_CLS" if spec.method.reward else "CAUSAL_LM",
        modules_to_save=["score"] if spec.method.reward else None,
    )


def _freeze_other_layers(model: Any, layers: list[int]) -> None:
    """Freeze all weights except those of these decoder layers and of the score head of a reward model."""
    prefixes = tuple(f".layers.{layer}." for layer in layers)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(prefix in f".{name}" for prefix in prefixes) or "score" in name


def save_result(trainer: Any, tokenizer: Any, job: JobFile, directory: Path, *, is_main: bool) -> None:
    """Save the adapter, or the complete model if that is what the job produces.

    Every process must call this, because gathering the shards of a model takes all of them. The directory appears only
    when it is complete.

    Args:
        trainer: the trainer, after the training.
        tokenizer: the tokenizer of the model.
        job: the FineTuneJob.
        directory: the target.
        is_main: whether this process is the main process.
    """
    partial = directory.with_suffix(".part")
    if is_main:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    if job.spec.adapter.low_rank and job.spec.produces_model:
        if is_main:
            merged = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
            merged.save_pretrained(partial, safe_serialization=True)
            tokenizer.save_pretrained(partial)
    else:
        trainer.save_model(str(partial))
    trainer.accelerator.wait_for_everyone()
    if is_main:
        _clean_up(partial, job)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    trainer.accelerator.wait_for_everyone()


def _clean_up(directory: Path, job: JobFile) -> None:
    """Delete files that are not needed to load the result, and replace the path of the base model with its URI."""
    for name in ("README.md", "training_args.bin"):
        (directory / name).unlink(missing_ok=True)
    config_path = directory / "adapter_config.json"
    if not config_path.exists():
        return
    for path in directory.iterdir():
        if path.is_dir():
            # TRL's copy of the parent job's adapter, the reference model of the training.
            shutil.rmtree(path)
        elif not path.name.startswith("adapter_"):
            path.unlink()
    config = json.loads(config_path.read_text())
    config |= {
        "base_model_name_or_path": job.base.uri,
        "revision": job.base.revision,
        "target_modules": sorted(config["target_modules"]),
    }
    config_path.write_text(json.dumps(config, indent=1, sort_keys=True))
