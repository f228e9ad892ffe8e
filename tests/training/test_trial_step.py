"""A training that would fail because of the model's architecture is refused before the job requests a GPU."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.trial_step import try_training_step
from finetune_trainer.tokenizer import Tokenizer
from training.test_packing import write_config
from training.test_target_modules import write_tiny
from workspace import make_price_chats, make_workspace

pytestmark = pytest.mark.filterwarnings("ignore")
GRADED = {"graders": [{"name": "right", "stringCheck": {}}]}


def build_spec(method: dict[str, Any], adapter: str = "lora") -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "pvc://models/tiny"},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": method,
            "adapter": {adapter: {}},
            "compute": {"resources": {"gpus": 1}},
        }
    )


@pytest.mark.parametrize(
    ("method", "adapter"),
    [
        ({"sft": {"packing": True}}, "lora"),
        ({"sft": {}}, "qlora"),
        ({"sft": {}}, "full"),
        ({"dpo": {}}, "dora"),
        ({"kto": {}}, "rslora"),
        ({"orpo": {}}, "lora"),
        ({"grpo": GRADED}, "lora"),
        ({"grpo": GRADED | {"beta": 0.1}}, "full"),
        ({"dpo": {}}, "full"),
        ({"kto": {}}, "full"),
        ({"reward": {}}, "lora"),
    ],
)
def test_every_method_takes_a_step(model: Path, tmp_path: Path, method: dict[str, Any], adapter: str) -> None:
    """Without the weights, which `prepare` does not have."""
    shutil.copy(model / "config.json", tmp_path)
    try_training_step(build_spec(method, adapter), tmp_path, Tokenizer(model, "base").tokenizer)


@pytest.mark.parametrize("name", ["granitemoe", "gpt_oss", "deepseek_v3", "mixtral", "nemotron_h"])
def test_architectures_take_a_step(model: Path, tmp_path: Path, name: str) -> None:
    try_training_step(build_spec({"sft": {}}), write_config(tmp_path, name), Tokenizer(model, "base").tokenizer)


def test_a_step_that_fails_is_refused_with_its_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL reads the number of experts under a name that this architecture does not have."""
    monkeypatch.setattr("finetune_trainer.prepare.trial_step.name_experts", lambda _: None)
    with pytest.raises(StageError, match="no attribute 'num_experts'") as refused:
        try_training_step(
            build_spec({"sft": {}}), write_config(tmp_path, "granitemoe"), Tokenizer(model, "base").tokenizer
        )
    assert refused.value.reason is Reason.MODEL_UNSUPPORTED
    assert "a step of method.sft with adapter.lora fails" in str(refused.value)


def test_a_class_whose_decoder_trl_does_not_find_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="has no attribute 'last_hidden_state'"):
        try_training_step(build_spec({"sft": {}}), write_tiny("llama4", tmp_path), Tokenizer(model, "base").tokenizer)


def test_an_architecture_that_cannot_be_built_tiny_is_not_refused(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    try_training_step(build_spec({"sft": {}}), write_config(tmp_path, "qwen3_vl"), Tokenizer(model, "base").tokenizer)
    assert "the training step is not tried" in caplog.text


def test_a_job_with_a_gpu_is_prepared_with_such_a_step(model: Path, tmp_path: Path) -> None:
    compute = {"resources": {"gpus": 1}}
    workspace = make_workspace(tmp_path, model, make_price_chats(20), method={"sft": {}}, compute=compute)
    status, report = workspace.run("prepare")
    assert (status, report and report.outcome) == (0, "Succeeded"), workspace.log[-3000:]
    assert "a training step of a tiny model of this architecture works" in workspace.log
