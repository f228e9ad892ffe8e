"""A merged model computes the same logits as its base model with the adapter."""

import shutil
from pathlib import Path

import torch
from finetune_api.artifact import describe_artifact
from finetune_api.digest import digest_directory
from peft import PeftModel
from transformers import AutoModelForCausalLM
from workspace import Workspace, make_price_chats, make_workspace


def test_a_merged_model_computes_what_base_and_adapter_do(trained: Workspace, model: Path, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(2), output={"merged": True})
    shutil.copytree(trained.directory.path, workspace.directory.path)
    adapter = workspace.directory.adapter(1)
    artifact = describe_artifact(adapter, f"{workspace.job.output_uri}/adapter/1")
    status, report = workspace.run("export", f"--artifact={artifact.model_dump_json(by_alias=True)}")
    assert status == 0, workspace.log
    assert report
    assert report.export
    assert report.export.merged
    merged = workspace.directory.model(1)
    assert report.export.merged.kind == "Model"
    assert report.export.merged.digest == digest_directory(merged)
    assert not list(merged.glob("*.py"))

    tokens = torch.arange(5, 30)[None]
    with_adapter = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter)
    merged_model = AutoModelForCausalLM.from_pretrained(merged)
    base = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        expected, actual, before = (network(tokens).logits for network in (with_adapter, merged_model, base))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert (expected - before).abs().max() > 0.1
