"""Which architectures keep packed examples apart, and what follows for a job."""

from pathlib import Path
from typing import Any

import pytest
from finetune_api.contract.jobfile import JobDirectory
from finetune_pod.chat import EncodedExample
from finetune_trainer.prepare.packing_check import measure_leak
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.prepared import read_examples
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.micro_batch import load_hyperparameters
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


def test_such_a_job_is_trained_without_packing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = make_workspace(tmp_path / "packed", model, make_price_chats(20), method={"sft": {"packing": True}})
    prepare(packed.job, packed.directory, None, "USD")
    assert load_hyperparameters(packed.job.spec, packed.directory).packing
    monkeypatch.setattr("finetune_trainer.prepare.decisions.measure_leak", lambda _: 0.36)
    workspace = make_workspace(tmp_path / "mixed", model, make_price_chats(20), method={"sft": {"packing": True}})
    report = prepare(workspace.job, workspace.directory, None, "USD")
    assert report.dataset is not None
    assert (report.dataset.warnings or {})["packing"] == 1
    assert not load_hyperparameters(workspace.job.spec, workspace.directory).packing
    text = workspace.directory.report("prepare").read_text()
    assert "one changes the logits of the next one by 0.36" in text


@pytest.mark.parametrize(("count", "max_length"), [(300, 64), (1000, 128)])
def test_with_the_defaults_packing_learns_no_less(model: Path, tmp_path: Path, count: int, max_length: int) -> None:
    """After the same epochs, on the examples that were held out. Fewer examples are not packed by default."""
    chosen, losses = [], []
    for name, sft in (("default", {}), ("plain", {"packing": False})):
        workspace = make_workspace(
            tmp_path / name,
            model,
            make_price_chats(count),
            method={"sft": sft},
            hyperparameters={"learningRate": 0.002, "maxLength": max_length},
            compute={"saveSteps": 1000},
        )
        for stage in (["prepare"], ["train", "--attempt=1"]):
            assert workspace.run(*stage)[0] == 0, workspace.log[-3000:]
        chosen.append(load_hyperparameters(workspace.job.spec, workspace.directory))
        losses.append(_compute_loss(model, workspace.directory))
    assert [values.packing for values in chosen] == [True, False]
    assert losses[0] <= losses[1] * 1.03, losses


def _compute_loss(model: Path, directory: JobDirectory) -> float:
    """Return the mean loss of the adapter on the held-out answers, in nats per token."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    encoder = Tokenizer(model, "pvc://models/tiny").encoder
    trained: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), directory.adapter(1))
    total, count = 0.0, 0
    for encoded in encoder.encode(list(read_examples(directory.heldout_data))):
        assert isinstance(encoded, EncodedExample)
        (sequence,) = encoded.sequences["messages"]
        ids, labels = torch.tensor([sequence.ids]), torch.tensor([sequence.labels.tolist()])
        targets = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += trained(input_ids=ids, labels=labels).loss.item() * targets
        count += targets
    return total / count
