"""The model as it is trained: its weights, quantised or not, what of them learns, and the adapter on top."""

import json
import shutil
from pathlib import Path
from typing import Any

from finetune_api.contract.jobfile import JobFile
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.servability import LORA_MODULES


def load_model(spec: FineTuneJobSpec, directory: Path) -> Any:
    """Load the base model for training; `prepare` has checked that it has the layers that are trained."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    on_gpu = spec.compute.resources.gpus > 0
    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if on_gpu or spec.adapter.qlora else torch.float32,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if spec.adapter.qlora:
        # As in the paper (arXiv:2305.14314): NF4, the constants quantised too, bfloat16 to compute in.
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if spec.method.reward:
        model = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=1, **options)
    else:
        model = AutoModelForCausalLM.from_pretrained(directory, **options)
    if spec.adapter.full and spec.adapter.full.layers:
        _freeze_others(model, spec.adapter.full.layers)
    return model


def build_peft_config(spec: FineTuneJobSpec) -> Any:
    """Return PEFT's configuration of the adapter; None where the model's own weights are trained."""
    from peft import LoraConfig

    update = spec.adapter.low_rank
    if update is None:
        return None
    return LoraConfig(
        r=update.rank,
        lora_alpha=update.alpha,
        lora_dropout=update.dropout,
        target_modules=list(update.target_modules or LORA_MODULES),
        layers_to_transform=update.layers,
        use_dora=spec.adapter.dora is not None,
        use_rslora=spec.adapter.rslora is not None,
        task_type="SEQ_CLS" if spec.method.reward else "CAUSAL_LM",
        modules_to_save=["score"] if spec.method.reward else None,
    )


def _freeze_others(model: Any, layers: list[int]) -> None:
    """Let only these decoder layers learn."""
    learning = tuple(f".layers.{layer}." for layer in layers)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(part in f".{name}" for part in learning) or "score" in name


def save_result(trainer: Any, tokenizer: Any, job: JobFile, directory: Path, *, is_main: bool) -> None:
    """Write what was trained, whole or not at all: the adapter, or the whole model where that is what is served.

    All processes call it, since a model in shards is put together by all of them.
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
        _tidy(partial, job)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    trainer.accelerator.wait_for_everyone()


def _tidy(directory: Path, job: JobFile) -> None:
    """Leave what is needed to load the result, with the base model's URI instead of a path in this pod."""
    for name in ("README.md", "training_args.bin"):
        (directory / name).unlink(missing_ok=True)
    config_path = directory / "adapter_config.json"
    if not config_path.exists():
        return
    for path in directory.iterdir():
        if path.is_dir():
            # TRL's copy of an earlier adapter, which the training is held to.
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
