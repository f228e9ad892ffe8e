"""What reaches the loss of every method: the prompt that vLLM sends, and the answer up to its stop token."""

import json
from pathlib import Path
from typing import Any

import pytest
from bench.templates import find_trl_templates
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.chat import IGNORED_LABEL
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.examples import load_examples
from finetune_trainer.train.methods import build_trainer
from finetune_trainer.train.micro_batch import load_hyperparameters
from finetune_trainer.train.models import build_peft_config, load_model
from model.tiny import make_tiny_model
from served import ServedPrompts
from template_check import make_template_tokenizer
from workspace import Workspace, make_workspace

pytestmark = pytest.mark.filterwarnings("ignore")
"""TRL, vLLM and torch warn at import and in training."""
TEMPLATES = ("qwen3", "llama3_1", "gemma3", "glm4moe", "gptoss", "phi3")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "track",
            "description": "where a parcel is",
            "parameters": {"type": "object", "properties": {"number": {"type": "string"}}},
        },
    }
]
GRADER = {"name": "any", "stringCheck": {"operation": "like", "referenceField": "wanted"}}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"packing": False},
    "dpo": {},
    "orpo": {},
    "kto": {},
    "reward": {},
    "grpo": {"graders": [GRADER], "numGenerations": 2, "maxCompletionLength": 4},
}
COUNT = 8


def ask(number: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"Where is P{number}?"}]


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def make_rows(method: str) -> list[dict[str, Any]]:
    if method == "sft":
        return [{"messages": ask(n) + say(f"P{n} is in Lyon."), "tools": TOOLS} for n in range(COUNT)]
    if method == "grpo":
        return [{"prompt": ask(n), "wanted": "P", "tools": TOOLS} for n in range(COUNT)]
    return [
        {"prompt": ask(n), "chosen": say(f"P{n} is in Lyon."), "rejected": say(f"P{n}? No."), "tools": TOOLS}
        for n in range(COUNT)
    ]


@pytest.fixture(scope="session", params=TEMPLATES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a real chat template."""
    directory = make_tiny_model(tmp_path_factory.mktemp(request.param))
    source = (find_trl_templates() / f"{request.param}.jinja").read_text()
    _, stops = make_template_tokenizer(directory, source)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": sorted(stops)}))
    return directory


def open_trainer(workspace: Workspace, base: Path, scratch: Path) -> tuple[Any, Tokenizer]:
    """Prepare a job, and return its trainer as the training builds it."""
    prepare(workspace.job, workspace.directory, None, "USD")
    spec: FineTuneJobSpec = workspace.job.spec
    tokenizer = Tokenizer(base, "base")
    examples = load_examples(workspace.directory.train_data, spec, tokenizer, scratch)
    chosen = load_hyperparameters(workspace.job.spec, workspace.directory)
    model = load_model(spec, base)
    arguments = (model, build_peft_config(spec, model), tokenizer.tokenizer, examples)
    return build_trainer(spec, chosen, *arguments, workspace.directory.checkpoints, []), tokenizer


def read_sequences(method: str, trainer: Any) -> list[tuple[list[int], list[int]]]:
    """Return the ids before the targets and the targets, of every sequence of a training."""
    sequences = []
    for batch in trainer.get_train_dataloader():
        if method == "kto":
            for kind in ("KL_", ""):
                rows = zip(batch[f"{kind}input_ids"], batch[f"{kind}completion_mask"], strict=True)
                sequences += [split(ids, mask.bool()) for ids, mask in rows]
        elif method == "orpo":
            for kind in ("chosen", "rejected"):
                rows = zip(batch[f"{kind}_input_ids"], batch[f"{kind}_labels"], strict=True)
                sequences += [split(ids, labels != IGNORED_LABEL) for ids, labels in rows]
        elif method == "sft":
            rows = zip(batch["input_ids"], batch["labels"], strict=True)
            sequences += [split(ids, labels != IGNORED_LABEL) for ids, labels in rows]
        else:
            rows = zip(batch["input_ids"], batch["completion_mask"], strict=True)
            sequences += [split(ids, mask.bool()) for ids, mask in rows]
    return sequences


def split(ids: Any, is_target: Any) -> tuple[list[int], list[int]]:
    start = int(is_target.nonzero()[0])
    return ids[:start].tolist(), ids[is_target].tolist()


@pytest.mark.parametrize("method", ["sft", "dpo", "orpo", "kto"])
def test_the_loss_reads_the_prompt_of_the_server_and_the_answer(method: str, base: Path, tmp_path: Path) -> None:
    trainer, tokenizer = open_trainer(make_job(method, base, tmp_path), base, tmp_path)
    served = ServedPrompts(tokenizer.tokenizer)
    prompts = {tuple(served.tokenize(served.render(ask(number), TOOLS))): number for number in range(COUNT)}
    stops = tokenizer.encoder.stop_tokens
    sequences = read_sequences(method, trainer)
    assert sequences
    for prompt, answer in sequences:
        number = prompts[tuple(prompt)]
        text = tokenizer.tokenizer.decode(answer)
        if method != "kto":  # KTO also reads the answers to other prompts.
            assert f"P{number} is in Lyon." in text or f"P{number}? No." in text
        assert [token for token in answer if token in stops] == answer[-1:]


def test_a_reward_model_reads_prompt_and_answer(base: Path, tmp_path: Path) -> None:
    trainer, tokenizer = open_trainer(make_job("reward", base, tmp_path), base, tmp_path)
    served = ServedPrompts(tokenizer.tokenizer)
    prompts = [served.tokenize(served.render(ask(number), TOOLS)) for number in range(COUNT)]
    for batch in trainer.get_train_dataloader():
        for ids, mask in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
            sequence = ids[: sum(mask)]
            (prompt,) = (prompt for prompt in prompts if sequence[: len(prompt)] == prompt)
            assert "P" in tokenizer.tokenizer.decode(sequence[len(prompt) :])
            assert sequence[-1] in tokenizer.encoder.stop_tokens


def test_grpo_generates_after_the_prompt_of_the_server(base: Path, tmp_path: Path) -> None:
    trainer, tokenizer = open_trainer(make_job("grpo", base, tmp_path), base, tmp_path)
    served = ServedPrompts(tokenizer.tokenizer)
    prompts = [served.tokenize(served.render(ask(number), TOOLS)) for number in range(COUNT)]
    trained, _, _ = trainer._tokenize_prompts([row["prompt"] for row in trainer.train_dataset])
    assert trained
    assert all(ids in prompts for ids in trained)


def make_job(method: str, base: Path, root: Path) -> Workspace:
    values = {"epochs": 1, "learningRate": 0.001, "batchSize": 4, "microBatchSize": 4, "maxLength": 1000}
    spec = {"method": {method: METHODS[method]}, "hyperparameters": values}
    return make_workspace(root / "job", base, make_rows(method), **spec)


def test_kto_compares_with_answers_to_other_prompts(model: Path, tmp_path: Path) -> None:
    trainer, tokenizer = open_trainer(make_job("kto", model, tmp_path), model, tmp_path)
    for batch in trainer.get_train_dataloader():
        for ids, mask in zip(batch["KL_input_ids"], batch["KL_completion_mask"], strict=True):
            prompt, answer = (tokenizer.tokenizer.decode(part) for part in split(ids, mask.bool()))
            number = prompt.partition("Where is ")[2].partition("?")[0]
            assert number not in answer


def test_a_reward_row_over_the_length_is_cut_off_and_not_thrown_away(model: Path, tmp_path: Path) -> None:
    workspace = make_job("reward", model, tmp_path)
    rows = [{"prompt": ask(number), "chosen": say("long " * 100), "rejected": say("No.")} for number in range(COUNT)]
    (workspace.root / "claims" / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads(workspace.job_path.read_text())
    manifest["spec"]["hyperparameters"]["maxLength"] = 128
    workspace.job_path.write_text(json.dumps(manifest))
    trainer, _ = open_trainer(workspace, model, tmp_path)
    lengths = [len(row["chosen_ids"]) for row in trainer.train_dataset]
    assert lengths
    assert set(lengths) == {128}


def test_training_uses_the_date_of_prepare(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "dated")
    make_template_tokenizer(base, (find_trl_templates() / "llama3_2.jinja").read_text())
    workspace = make_job("sft", base, tmp_path)
    workspace.directory.template_date.parent.mkdir(parents=True)
    workspace.directory.template_date.write_text("2026-02-03")
    report = prepare(workspace.job, workspace.directory, None, "USD")
    assert report.dataset is not None
    warnings = report.dataset.warnings or {}
    assert (warnings["date"], warnings["heldout"]) == (1, 1)
    tokenizer = Tokenizer(base, "base", workspace.directory.read_template_date())
    examples = load_examples(workspace.directory.train_data, workspace.job.spec, tokenizer, tmp_path)
    assert all("Today Date: 03 Feb 2026" in tokenizer.tokenizer.decode(row["input_ids"]) for row in examples)
