"""Data sources of a few rows, and what is found in them."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from finetune_api.data import Format
from finetune_api.training import Method
from finetune_trainer.prepare.conversions import convert_example
from finetune_trainer.prepare.dataset import Survey, find_format, survey
from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.measure import Measured
from finetune_trainer.prepare.row_issues import RowError, Warned

ANSWER = {"role": "assistant", "content": "good day"}
URI = "pvc://data/train.jsonl"
METHODS: dict[str, dict[str, Any]] = {
    **{name: {name: {}} for name in ("sft", "dpo", "kto")},
    "grpo": {"grpo": {"graders": [{"name": "right", "stringCheck": {}}]}},
}


def chat(question: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": str(question)}, ANSWER]}


def lines(rows: list[Any]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def count_words(examples: list[Example]) -> list[Measured]:
    """Stands in for the tokenizer: a token a word, and what says `endless` is too long."""
    measured = []
    for text in map(json.dumps, examples):
        count = len(text.split())
        problem = RowError("truncated", "too long") if "endless" in text else None
        measured.append(Measured(count, count, count, problem, (Warned("odd", "odd"),) * ("odd" in text)))
    return measured


def look(
    directory: Path, *files: list[Any], wanted: Format | None = None, uri: str = URI, method: str = "sft"
) -> Survey:
    """Survey files that hold these rows."""
    directory.mkdir(exist_ok=True)
    paths = []
    for number, rows in enumerate(files, 1):
        paths.append(directory / f"part-{number}.jsonl")
        paths[-1].write_bytes(lines(rows))
    name = wanted or find_format(uri, paths)
    convert = partial(convert_example, Method.model_validate(METHODS[method]))
    return survey(uri, paths, name, convert, count_words, directory / "out" / "all.jsonl")


OTHER = {"role": "assistant", "content": "go away"}
