"""What reaches the loss of a training on several sources with weights."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from finetune_api.summaries import DatasetSummary
from finetune_pod.chat import IGNORED_LABEL
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.examples import load_examples
from finetune_trainer.train.methods import build_trainer
from finetune_trainer.train.micro_batch import load_hyperparameters
from finetune_trainer.train.models import build_peft_config, load_model
from workspace import Workspace, make_price_chats, make_workspace

pytestmark = pytest.mark.filterwarnings("ignore")
"""TRL and torch warn at import and in training."""
OWN, PUBLIC, NOTES = 20, 40, 12
MIX = [
    {"uri": "pvc://data/own.jsonl", "weight": 2},
    {"uri": "pvc://data/public.csv", "weight": 0.25, "columns": {"prompt": "question", "completion": "reply"}},
    {"uri": "pvc://data/notes.jsonl", "weight": 1.5},
]


def make_mix(root: Path, base: Path, **spec: Any) -> Workspace:
    """Return a job with own chats, the questions of a table with other columns, and plain text."""
    values = {"epochs": 1, "learningRate": 0.001, "batchSize": 4, "microBatchSize": 4, "maxLength": 64}
    dataset = {"mix": MIX, "holdout": 0.2}
    workspace = make_workspace(root, base, [], **{"dataset": dataset, "hyperparameters": values} | spec)
    data = root / "claims" / "data"
    write_lines(data / "own.jsonl", make_price_chats(OWN))
    write_lines(data / "notes.jsonl", [{"text": f"note {number} of the shop"} for number in range(NOTES)])
    with (data / "public.csv").open("w") as file:
        table = csv.writer(file)
        table.writerow(("id", "question", "reply"))
        table.writerows((number, f"who wrote book {number}?", f"author {number}") for number in range(PUBLIC))
    return workspace


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepare_mix(workspace: Workspace) -> DatasetSummary:
    report = prepare(workspace.job, workspace.directory, None, "USD")
    assert report.dataset is not None
    return report.dataset


def read_losses(workspace: Workspace, base: Path, scratch: Path) -> Counter[str]:
    """Return the texts that the loss of an epoch reads, and how many times it reads each."""
    spec, tokenizer = workspace.job.spec, Tokenizer(base, "base")
    examples = load_examples(workspace.directory.train_data, spec, tokenizer, scratch)
    chosen = load_hyperparameters(spec, workspace.directory)
    base_model = load_model(spec, base)
    arguments = (base_model, build_peft_config(spec, base_model), tokenizer.tokenizer, examples)
    trainer = build_trainer(spec, chosen, *arguments, workspace.directory.checkpoints, [])
    return Counter(
        tokenizer.tokenizer.decode(labels[labels != IGNORED_LABEL])
        for batch in trainer.get_train_dataloader()
        for labels in batch["labels"]
    )


def test_an_epoch_reads_each_example_as_often_as_its_source_weighs(model: Path, tmp_path: Path) -> None:
    workspace = make_mix(tmp_path / "job", model)
    summary = prepare_mix(workspace)
    losses = read_losses(workspace, model, tmp_path)
    own = [f"thing {number} costs {number} euros<|end|>" for number in range(OWN)]
    public = [f"author {number}<|end|>" for number in range(PUBLIC)]
    notes = [f"note {number} of the shop<|end|>" for number in range(NOTES)]
    heldout = workspace.directory.heldout_data.read_text()
    held = {text: text.removesuffix("<|end|>") in heldout for text in (*own, *public, *notes)}
    copies = [Counter(losses[text] for text in texts if not held[text]) for texts in (own, public, notes)]
    assert copies[0].keys() == {2}
    assert copies[1].keys() == {0, 1}
    assert copies[1][1] == PUBLIC * 0.25 - sum(held[text] for text in public)
    assert copies[2].keys() == {1, 2}
    assert not [text for text in losses if held[text]]
    assert losses.keys() <= held.keys()
    assert summary.sources is not None
    assert [source.format for source in summary.sources] == ["Chat", "PromptCompletion", "Text"]
    assert [source.train_examples for source in summary.sources] == [
        sum(losses[text] for text in texts) for texts in (own, public, notes)
    ]
    assert summary.train_examples == losses.total()
    assert summary.heldout_examples == sum(held.values()) == len(heldout.splitlines()) == round(42 * 0.2)
    assert (summary.format, summary.duplicates) == (None, 0)


def test_the_same_mix_is_prepared_again(model: Path, tmp_path: Path) -> None:
    workspaces = [make_mix(tmp_path / name, model) for name in ("first", "second")]
    first, second = map(prepare_mix, workspaces)
    assert first == second
    directory = workspaces[0].directory.train_data.parent
    assert sorted(path.name for path in directory.iterdir()) == ["heldout.jsonl", "train.jsonl"]


def test_every_source_of_a_mix_is_in_the_report(model: Path, tmp_path: Path) -> None:
    workspace = make_mix(tmp_path / "job", model)
    prepare_mix(workspace)
    report = json.loads(workspace.directory.report("prepare").read_text())
    uris = [source["uri"] for source in MIX]
    assert [source["uri"] for source in report["sources"]] == ["pvc://models/tiny", *uris]
    assert all(len(source["files"][0]["sha256"]) == 64 for source in report["sources"])
    assert [file["uri"] for file in report["files"]] == uris


def test_early_stopping_validates_on_no_copy_of_a_trained_example(model: Path, tmp_path: Path) -> None:
    values = {"epochs": 8, "batchSize": 4, "maxLength": 64, "earlyStopping": {"evalSteps": 2, "fraction": 0.3}}
    workspace = make_mix(tmp_path / "job", model, hyperparameters=values)
    prepare_mix(workspace)
    spec, tokenizer = workspace.job.spec, Tokenizer(model, "base")
    examples = load_examples(workspace.directory.train_data, spec, tokenizer, tmp_path)
    chosen = load_hyperparameters(spec, workspace.directory)
    base_model = load_model(spec, model)
    arguments = (base_model, build_peft_config(spec, base_model), tokenizer.tokenizer, examples)
    trainer = build_trainer(spec, chosen, *arguments, workspace.directory.checkpoints, [])
    trained, validated = (
        {tuple(row["input_ids"]) for row in part} for part in (trainer.train_dataset, trainer.eval_dataset)
    )
    assert validated
    assert not trained & validated
