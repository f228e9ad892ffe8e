"""Trains a tiny model of the architecture with random weights for one step, so that no GPU is requested for a failure.

What fails in TRL, PEFT or transformers because of the model's architecture alone fails here too.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from finetune_api.compute import Compute
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.graders import Grader
from finetune_api.summaries import ChosenHyperparameters
from finetune_api.training import Adapter, Full, Hyperparameters, Method

from finetune_trainer.failures import StageError
from finetune_trainer.loading import choose_model_class
from finetune_trainer.prepare.tiny_model import shrink
from finetune_trainer.train.models import build_peft_config, name_experts

_LOG = logging.getLogger(__name__)
_IDS = list(range(3, 15))
"""Token ids, which every vocabulary has."""
_SAMPLES = 2


def try_training_step(spec: FineTuneJobSpec, directory: Path, tokenizer: Any) -> None:
    """Train a tiny model for one step with the method and the adapter of a job.

    Args:
        spec: the spec of the job.
        directory: the directory of the model, of which only the configuration is read.
        tokenizer: its tokenizer.

    Raises:
        StageError: the step fails although the model itself computes.
    """
    import torch

    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as scratch:
        model = _build_model(spec, directory, Path(scratch) / "model")
        if model is None:
            _LOG.warning("no tiny model of this architecture can be built: the training step is not tried")
            return
        try:
            _train(_simplify(spec), model, tokenizer, Path(scratch) / "checkpoints")
        except Exception as error:
            raise StageError(
                Reason.MODEL_UNSUPPORTED,
                f"{spec.model.uri}: a step of method.{spec.method.name} with adapter.{spec.adapter.name} fails"
                f" on a tiny model of its architecture ({type(error).__name__}: {error}):"
                " use another method, adapter or base model",
            ) from error
    _LOG.info("a training step of a tiny model of this architecture works")


def _build_model(spec: FineTuneJobSpec, directory: Path, copy: Path) -> Any:
    """Return a tiny model; None if its configuration does not work with such sizes.

    It is also saved, since some methods load their reference model from where the model came from.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        whole = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        config, kind = shrink(whole), choose_model_class(whole)
        config.get_text_config().vocab_size = whole.get_text_config().vocab_size
        if spec.method.reward:
            kind, config.num_labels = AutoModelForSequenceClassification, 1
        model = kind.from_config(config).float()
        model(input_ids=torch.tensor([_IDS]))[0].sum().backward()
    except Exception:  # noqa: BLE001 - architectures fail in any way with sizes that they do not expect
        return None
    model.zero_grad()
    name_experts(model.config)
    model.save_pretrained(copy)
    model.config._name_or_path = str(copy)  # noqa: SLF001 - where TRL looks for it
    return model


def _simplify(spec: FineTuneJobSpec) -> FineTuneJobSpec:
    """Return the spec of one short step on a CPU: the same method and kind of adapter, on all layers."""
    low_rank, method, name = spec.adapter.low_rank, spec.method, spec.adapter.name
    if low_rank:
        # Quantized layers need a GPU; their adapter is the same.
        name = "lora" if name == "qlora" else name
        adapter = Adapter.model_validate({name: low_rank.model_copy(update={"layers": None})})
    else:
        adapter = Adapter(full=Full())
    if method.grpo:
        grader = Grader.model_validate({"name": "any", "stringCheck": {"operation": "ne", "reference": "x"}})
        update = {"graders": [grader], "num_generations": _SAMPLES, "max_completion_length": 2}
        method = Method(grpo=method.grpo.model_copy(update=update))
    values = Hyperparameters(max_length=2 * len(_IDS), neftune_noise_alpha=spec.hyperparameters.neftune_noise_alpha)
    update = {"adapter": adapter, "method": method, "hyperparameters": values, "compute": Compute()}
    return spec.model_copy(update=update)


def _train(spec: FineTuneJobSpec, model: Any, tokenizer: Any, scratch: Path) -> None:
    from datasets import Dataset, disable_progress_bars

    from finetune_trainer.train.methods import build_trainer

    chosen = ChosenHyperparameters(
        epochs=1,
        learning_rate=1e-4,
        batch_size=_SAMPLES,
        micro_batch_size=_SAMPLES,
        gradient_accumulation_steps=1,
        packing=bool(spec.method.sft and spec.method.sft.packing is not False),
    )
    disable_progress_bars()
    rows = Dataset.from_list([_build_row(spec, number) for number in range(_SAMPLES)])
    trainer = build_trainer(spec, chosen, model, build_peft_config(spec, model), tokenizer, rows, scratch, [])
    trainer.train()


def _build_row(spec: FineTuneJobSpec, number: int) -> dict[str, Any]:
    """Return a row with the columns of `load_examples`."""
    match spec.method.name:
        case "sft":
            return {"input_ids": _IDS, "labels": _IDS}
        case "grpo":
            return {"prompt": json.dumps(_IDS), "reference": "{}"}
        case "kto":
            return {"prompt_ids": [*_IDS[:4], number], "completion_ids": _IDS[4:], "label": number % 2 == 0}
        case "reward":
            return {"chosen_ids": _IDS, "rejected_ids": _IDS[::-1]}
    return {"prompt_ids": _IDS[:4], "chosen_ids": _IDS[4:], "rejected_ids": _IDS[:3:-1]}
