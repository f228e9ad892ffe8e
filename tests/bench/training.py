"""Trains the same model on the same short rows alternately with this project and with a plain TRL script."""

import json
import math
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from bench.settings import EPOCHS, LEARNING_RATE, MAX_LENGTH, RANK, SEED
from finetune_api.summaries import DatasetSummary
from model.tiny import make_tiny_model
from scipy import stats
from workspace import Workspace, make_workspace

_ROWS = 600
_RUNS = 5
_LAYERS = 6
_PLAIN_BATCH = 32
_MAX_WORDS = 40
"""Of a question or an answer, so that no row is longer than MAX_LENGTH."""
_WORDS = ("shop", "sells", "kettles", "lamps", "chairs", "tables", "for", "a", "fair", "price", "every", "day")


@dataclass(frozen=True)
class Run:
    """The figures of one training."""

    tokens_per_s: float
    startup_s: float
    """Seconds from the start of the program to the end of the first step."""
    adapter: Path


def measure_training(root: Path) -> dict[str, Any]:
    """Return the figures of the benchmark; ratios are medians over alternating runs."""
    root.mkdir(exist_ok=True)
    base = make_tiny_model(root / "base", layers=_LAYERS)
    rows = make_rows(_ROWS)
    ours, plain, differences = [], [], []
    for seed in range(_RUNS):
        workspace = _prepare(root / f"ours-{seed}", base, rows, seed)
        ours.append(_run_ours(workspace))
        plain.append(_run_plain(root / f"plain-{seed}", base, workspace, seed))
        losses = [_measure_loss(base, run.adapter, workspace.directory.heldout_data) for run in (ours[-1], plain[-1])]
        differences.append(losses[0] - losses[1])
    half_width = stats.t.ppf(0.975, _RUNS - 1) * stats.sem(differences)
    return {
        "tokens_per_s_ratio": round(
            median(a.tokens_per_s / b.tokens_per_s for a, b in zip(ours, plain, strict=True)), 2
        ),
        "tokens_per_s": round(median(run.tokens_per_s for run in ours)),
        "loss_difference": round(mean(differences), 4),
        "loss_difference_interval": [round(float(mean(differences) + sign * half_width), 4) for sign in (-1, 1)],
        "startup_s": round(median(run.startup_s for run in ours), 1),
        "startup_s_plain": round(median(run.startup_s for run in plain), 1),
        "runs": _RUNS,
    }


def make_rows(count: int) -> list[dict[str, str]]:
    """Return reproducible rows with the lengths of support questions: most short, a few long."""
    generator = random.Random(SEED)

    def build_text(words: tuple[str, ...], median_length: int) -> str:
        length = round(generator.lognormvariate(math.log(median_length), 1))
        return " ".join(generator.choices(words, k=min(max(length, 2), _MAX_WORDS)))

    return [
        {
            "prompt": f"question {number}: {build_text(_WORDS, 5)}?",
            "completion": f"answer {number}: {build_text(_WORDS[:6], 4)}.",
        }
        for number in range(count)
    ]


def _prepare(root: Path, base: Path, rows: list[dict[str, str]], seed: int) -> Workspace:
    """Prepare a job with packing, with a batch size that gives as many steps as the plain script has."""
    workspace = make_workspace(
        root,
        base,
        list(rows),
        method={"sft": {"packing": True}},
        adapter={"lora": {"rank": RANK}},
        hyperparameters={"epochs": EPOCHS, "learningRate": LEARNING_RATE, "maxLength": MAX_LENGTH, "seed": seed},
        compute={"saveSteps": 100_000},
    )
    dataset = _run_prepare(workspace)
    steps = math.ceil(dataset.train_examples / _PLAIN_BATCH)
    job = json.loads(workspace.job_path.read_text())
    job["spec"]["hyperparameters"]["batchSize"] = max(1, round(dataset.train_tokens / MAX_LENGTH / steps))
    workspace.job_path.write_text(json.dumps(job))
    _run_prepare(workspace)
    return workspace


def _run_prepare(workspace: Workspace) -> DatasetSummary:
    status, report = workspace.run_subprocess("prepare")
    if status != 0 or report is None or report.dataset is None:
        raise SystemExit(workspace.log[-3000:])
    return report.dataset


def _count_tokens(workspace: Workspace) -> int:
    """Return the number of tokens of all epochs, without padding."""
    report = json.loads(workspace.directory.report("prepare").read_text())
    return int(report["statistics"]["trainTokens"] * EPOCHS)


def _run_ours(workspace: Workspace) -> Run:
    started = time.monotonic()
    process = workspace.start("train", "--attempt=1")
    startup = _wait_for_first_step(process, workspace.root / "log", started)
    report = workspace.report() if process.wait() == 0 else None
    if report is None or report.training is None:
        raise SystemExit(workspace.log[-3000:])
    return Run(_count_tokens(workspace) / report.training.seconds, startup, workspace.directory.adapter(1))


def _run_plain(directory: Path, base: Path, workspace: Workspace, seed: int) -> Run:
    directory.mkdir()
    data = directory / "train.jsonl"
    with workspace.directory.train_data.open() as lines, data.open("w") as out:
        for line in lines:
            messages = json.loads(line)["messages"]
            out.write(json.dumps({"prompt": messages[:-1], "completion": messages[-1:]}) + "\n")
    log = directory / "log"
    command = [sys.executable, "-m", "bench.plain_trl", str(base), str(data), str(directory)]
    command += [str(_PLAIN_BATCH), str(seed)]
    started = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    startup = _wait_for_first_step(process, log, started)
    if process.wait() != 0:
        raise SystemExit(log.read_text()[-3000:])
    seconds = float(re.findall(r'"seconds": ([0-9.]+)', log.read_text())[-1])
    return Run(_count_tokens(workspace) / seconds, startup, directory)


def _wait_for_first_step(process: "subprocess.Popen[Any]", log: Path, started: float) -> float:
    while "step 1 of" not in log.read_text():
        if process.poll() not in (None, 0):
            raise SystemExit(log.read_text()[-3000:])
        time.sleep(0.02)
    return time.monotonic() - started


def _measure_loss(base: Path, adapter: Path, heldout: Path) -> float:
    """Return the mean loss on the completions of the held-out rows, in nats per token."""
    import torch
    from finetune_pod.template import TemplateError
    from finetune_trainer.tokenizer import Tokenizer
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer(base, "base")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    losses = []
    for line in heldout.read_text().splitlines():
        (example,) = tokenizer.encoder.encode([json.loads(line)])
        if isinstance(example, TemplateError):
            raise example
        (encoded,) = example.sequences["messages"]
        with torch.no_grad():
            output = model(input_ids=torch.tensor([encoded.ids]), labels=torch.as_tensor(encoded.labels)[None])
        losses.append(output.loss.item())
    return float(mean(losses))
