"""The proven adapter merged into its base model answers as the two together do."""

import shutil
from pathlib import Path

import torch
from finetune_api.artifact import describe_artifact
from finetune_api.digest import digest_directory
from peft import PeftModel
from transformers import AutoModelForCausalLM
from workspace import Workspace, make_price_chats, make_workspace


def test_a_merged_model_answers_as_base_and_adapter_do(trained: Workspace, model: Path, tmp_path: Path) -> None:
    place = make_workspace(tmp_path, model, make_price_chats(2), output={"merged": True})
    shutil.copytree(trained.directory.path, place.directory.path)
    adapter = place.directory.adapter(1)
    artifact = describe_artifact(adapter, f"{place.job.output_uri}/adapter/1")
    status, report = place.run("export", f"--artifact={artifact.model_dump_json(by_alias=True)}")
    assert status == 0, place.log
    assert report
    assert report.export
    assert report.export.merged
    merged = place.directory.model(1)
    assert report.export.merged.kind == "Model"
    assert report.export.merged.digest == digest_directory(merged)
    assert not list(merged.glob("*.py"))

    tokens = torch.arange(5, 30)[None]
    together = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter)
    alone = AutoModelForCausalLM.from_pretrained(merged)
    base = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        wanted, found, before = (one(tokens).logits for one in (together, alone, base))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (wanted - before).abs().max() > 0.1
