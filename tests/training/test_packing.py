"""Which architectures keep packed examples apart, and what follows for a job."""

from pathlib import Path
from typing import Any

import pytest
from finetune_trainer.prepare.packing_check import measure_leak
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.prepared import apply_preparation
from workspace import make_price_chats, make_workspace

HYBRID = {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_hidden_layers": 4}


def write_config(directory: Path, name: str, values: dict[str, Any] | None = None) -> Path:
    """Write the configuration of a model as its makers published it, but for the given values."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(name, **(values or {}))
    config.architectures = ["AnyForCausalLM"]
    config.save_pretrained(directory)
    return directory


@pytest.mark.parametrize(
    "name",
    ["llama", "qwen3", "qwen3_moe", "gemma3_text", "gemma4_text", "phi3", "glm4_moe", "deepseek_v3", "minimax_m2"],
)
def test_attention_keeps_packed_examples_apart(name: str, tmp_path: Path) -> None:
    assert measure_leak(write_config(tmp_path, name)) == 0


@pytest.mark.parametrize(
    ("name", "values", "least"),
    [
        ("gpt_oss", {}, 0.1),
        ("qwen3_next", {}, 0.01),
        ("olmo_hybrid", {}, 0.01),
        ("falcon_h1", {}, 1e-4),
        ("lfm2", HYBRID, 1e-5),
        ("granitemoehybrid", {}, 0.1),
        ("nemotron_h", {}, 0.1),
    ],
)
def test_other_layers_mix_packed_examples(name: str, values: dict[str, Any], least: float, tmp_path: Path) -> None:
    leak = measure_leak(write_config(tmp_path, name, values))
    assert leak is not None
    assert leak > least


def test_an_architecture_that_cannot_be_built_tiny_is_told(tmp_path: Path) -> None:
    assert measure_leak(write_config(tmp_path, "qwen3_vl")) is None


def test_such_a_job_is_prepared_and_trained_without_packing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_workspace(tmp_path / "packed", model, make_price_chats(20), method={"sft": {"packing": True}})
    prepare(packed.job, packed.directory, None, "USD")
    assert apply_preparation(packed.job, packed.directory) == packed.job
    monkeypatch.setattr("finetune_trainer.prepare.stage.measure_leak", lambda _: 0.36)
    workspace = make_workspace(tmp_path / "mixed", model, make_price_chats(20), method={"sft": {"packing": True}})
    report = prepare(workspace.job, workspace.directory, None, "USD")
    assert report.dataset is not None
    assert (report.dataset.warnings or {})["packing"] == 1
    trained = apply_preparation(workspace.job, workspace.directory).spec.method.sft
    assert trained is not None
    assert not trained.packing
    text = workspace.directory.report("prepare").read_text()
    assert "one changes the logits of the next one by 0.36" in text
