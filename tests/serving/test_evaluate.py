"""The evaluation through vLLM agrees with a direct computation by transformers and peft."""

import json
import math
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from finetune_api.conditions import Reason
from finetune_api.digest import digest_directory
from finetune_api.jobfile import JobDirectory, read_job_file
from finetune_api.reports import ExitCode, parse_report
from serving.conftest import MODEL_URI, make_adapter

CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"what does thing {number} cost?"},
            {"role": "assistant", "content": f"thing {number} costs {number} euros"},
        ]
    }
    for number in range(8)
]


@pytest.fixture(scope="module")
def workplace(root: Path) -> Path:
    """A job after its training."""
    manifest = {
        "metadata": {"name": "job", "uid": "0123456789"},
        "spec": {
            "model": {"uri": MODEL_URI},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": {"sft": {}},
            "adapter": {"lora": {"rank": 8}},
            "evaluation": {"gates": [{"metric": "Perplexity", "minGain": 0.5}], "maxAnswerTokens": 4},
        },
    }
    (root / "job.json").write_text(json.dumps(manifest))
    directory = JobDirectory(PurePosixPath(f"{root}{JobDirectory.of(read_job_file(root / 'job.json')).root}"))
    directory.heldout_data.parent.mkdir(parents=True)
    directory.heldout_data.write_text("".join(json.dumps(chat) + "\n" for chat in CHATS))
    make_adapter(root / "claims" / "models" / "tiny", directory.adapter(1), 3)
    return directory.adapter(1)


def evaluate(root: Path, digest: str) -> tuple[int, Any]:
    command = [
        sys.executable,
        "-m",
        "finetune_serving",
        f"--root={root}",
        "evaluate",
        f"--job={root / 'job.json'}",
        "--train-attempt=1",
        f"--digest={digest}",
        f"--termination-log={root / 'report.json'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (root / "report.json").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return done.returncode, parse_report((root / "report.json").read_text())


def test_perplexities_are_those_of_transformers_and_peft(root: Path, workplace: Path) -> None:
    status, report = evaluate(root, digest_directory(workplace))
    assert status == 0
    measured = {metric.metric: metric for metric in report.evaluation.metrics}
    base, tuned = direct_perplexities(root / "claims" / "models" / "tiny", workplace)
    assert measured["Perplexity"].base == pytest.approx(base, rel=0.01)
    assert measured["Perplexity"].tuned == pytest.approx(tuned, rel=0.01)
    assert report.reason is Reason.GATES_FAILED
    assert not report.evaluation.passed
    directory = workplace.parents[1]
    full = json.loads((directory / "report" / "evaluate.json").read_text())
    assert [sample["reference"] for sample in full["samples"]] == [chat["messages"][1]["content"] for chat in CHATS]


def test_an_adapter_that_changed_since_is_not_judged(root: Path, workplace: Path) -> None:
    status, report = evaluate(root, "sha256:" + "0" * 64)
    assert status == ExitCode.BAD_CONFIG
    assert report.reason is Reason.ADAPTER_REFUSED


def test_of_plain_text_only_the_perplexity_is_measured(root: Path, workplace: Path) -> None:
    heldout = workplace.parents[1] / "data" / "heldout.jsonl"
    chats = heldout.read_text()
    heldout.write_text("".join(json.dumps({"text": f"the {word} costs nothing"}) + "\n" for word in ("tent", "lamp")))
    try:
        status, report = evaluate(root, digest_directory(workplace))
    finally:
        heldout.write_text(chats)
    assert status == 0
    (measured,) = report.evaluation.metrics
    assert measured.metric == "Perplexity"
    assert 1 < measured.base < 10_000


def direct_perplexities(model: Path, adapter: Path) -> list[float]:
    """Compute exp(sum of losses / number of tokens) over the assistant's tokens without vLLM."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    base: Any = AutoModelForCausalLM.from_pretrained(model)
    tuned: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter)
    found = []
    for one in (base, tuned):
        total, count = 0.0, 0
        for chat in CHATS:
            text = tokenizer.apply_chat_template(chat["messages"], tokenize=False)
            opening = tokenizer.apply_chat_template(chat["messages"][:1], tokenize=False, add_generation_prompt=True)
            encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            ids = torch.tensor([encoded["input_ids"]])
            with torch.no_grad():
                logprobs = one(input_ids=ids).logits.log_softmax(-1)[0]
            for index, (begin, _) in enumerate(encoded["offset_mapping"]):
                if begin >= len(opening):
                    # The template ends every turn with a line break, which belongs to the turn.
                    total -= float(logprobs[index - 1, ids[0, index]])
                    count += 1
        found.append(math.exp(total / count))
    return found
