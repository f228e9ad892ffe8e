"""A model without a chat template is trained with that of `model.chatTemplate`."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_api.artifact import describe_artifact
from finetune_api.conditions import Reason
from finetune_pod.chat import IGNORED_LABEL
from finetune_pod.template_file import TemplateFile, read_template
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.prepared import read_chat_template
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.examples import load_examples
from model.templates import TEMPLATE, URI, remove_template, write_template
from model.tiny import make_tiny_model
from served import ServedPrompts
from transformers import AutoTokenizer
from workspace import Workspace, make_price_chats, make_workspace

pytestmark = pytest.mark.filterwarnings("ignore")
"""TRL, vLLM and torch warn at import and in training."""
OTHER = "{{ raise_exception('changed') }}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without a chat template."""
    return remove_template(make_tiny_model(tmp_path_factory.mktemp("base") / "tiny"))


def make_job(root: Path, base: Path, **spec: Any) -> Workspace:
    workspace = make_workspace(
        root, base, make_price_chats(12), **{"model": {"uri": "pvc://models/tiny", "chatTemplate": URI}} | spec
    )
    write_template(root)
    return workspace


def test_the_loss_reads_what_a_server_with_the_template_sends(base: Path, tmp_path: Path) -> None:
    workspace = make_job(tmp_path, base)
    report = prepare(workspace.job, workspace.directory, None, "USD")
    template = read_template(URI, tmp_path)
    assert report.dataset is not None
    assert report.dataset.chat_template == template.digest
    # The stages after prepare do not mount the ConfigMap.
    write_template(tmp_path, OTHER)
    prepared = read_chat_template(workspace.job, workspace.directory)
    assert prepared == TemplateFile(URI, TEMPLATE)
    tokenizer = Tokenizer(base, "base", template=prepared)
    served = ServedPrompts(AutoTokenizer.from_pretrained(base), TEMPLATE)
    prompts = [served.tokenize(served.render(chat["messages"][:1], None)) for chat in make_price_chats(12)]
    examples = load_examples(workspace.directory.train_data, workspace.job.spec, tokenizer, tmp_path)
    assert len(examples) == report.dataset.train_examples
    for row in examples:
        answer = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED_LABEL]
        assert row["input_ids"][: -len(answer)] in prompts
        assert tokenizer.tokenizer.decode(answer).endswith(" euros<|end|>")
    sources = json.loads(workspace.directory.report("prepare").read_text())["sources"]
    assert (sources[1]["uri"], f"sha256:{sources[1]['files'][0]['sha256']}") == (URI, template.digest)


def test_a_model_without_a_template_needs_one(base: Path, tmp_path: Path) -> None:
    workspace = make_job(tmp_path, base, model={"uri": "pvc://models/tiny"})
    with pytest.raises(StageError, match="has no chat template: .*, or set model.chatTemplate") as error:
        prepare(workspace.job, workspace.directory, None, "USD")
    assert error.value.reason is Reason.TEMPLATE_INVALID


def test_a_whole_model_has_the_template_that_it_was_trained_with(base: Path, tmp_path: Path) -> None:
    workspace = make_job(tmp_path, base, adapter={"full": {}})
    assert workspace.run("prepare")[0] == 0, workspace.log
    write_template(tmp_path, OTHER)
    status, report = workspace.run("train", "--attempt=1")
    assert status == 0, workspace.log
    assert report is not None
    assert (workspace.directory.model(1) / "chat_template.jinja").read_text() == TEMPLATE
    assert f"Chat template: `{URI}`, `sha256:" in workspace.directory.model_card.read_text()


def test_a_merged_model_has_the_template_too(trained: Workspace, model: Path, tmp_path: Path) -> None:
    spec = {"model": {"uri": "pvc://models/tiny", "chatTemplate": URI}, "output": {"merged": True}}
    workspace = make_workspace(tmp_path, model, [], **spec)
    adapter = workspace.directory.adapter(1)
    adapter.parent.mkdir(parents=True)
    adapter.symlink_to(trained.directory.adapter(1))
    artifact = describe_artifact(adapter, f"{workspace.job.output_uri}/adapter/1").model_dump_json(by_alias=True)
    workspace.directory.report("x").parent.mkdir()
    workspace.directory.model_card.write_text("# job\n")
    workspace.directory.history.write_text("step\n")
    assert workspace.run("export", f"--artifact={artifact}")[1].reason is Reason.PREPARED_DATA_GONE  # type: ignore[union-attr]
    workspace.directory.chat_template.parent.mkdir()
    workspace.directory.chat_template.write_text(TEMPLATE)
    assert workspace.run("export", f"--artifact={artifact}")[0] == 0, workspace.log
    assert (workspace.directory.model(1) / "chat_template.jinja").read_text() == TEMPLATE


def test_a_child_job_needs_the_template_of_its_parent(base: Path, tmp_path: Path) -> None:
    workspace = make_job(tmp_path, base)
    artifact = {"uri": "pvc://out/parent/adapter/1", "digest": f"sha256:{'a' * 64}", "bytes": 1}
    manifest = json.loads(workspace.job_path.read_text())
    manifest["warmStart"] = {
        "job": "parent",
        "model": manifest["spec"]["model"],
        "artifact": artifact,
        "parentAdapter": "Train",
        "chatTemplate": f"sha256:{'b' * 64}",
    }
    workspace.job_path.write_text(json.dumps(manifest))
    with pytest.raises(StageError) as error:
        prepare(workspace.job, workspace.directory, None, "USD")
    assert error.value.reason is Reason.TEMPLATE_INVALID
    assert str(error.value) == (
        f"{URI} was changed since FineTuneJob parent was trained with it: restore the content with the digest"
        " sha256:bbbbbbbbbbbb"
    )
