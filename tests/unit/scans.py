"""Scans of data sources with a few rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.data import Format, MixedSource
from finetune_api.training import Method
from finetune_trainer.prepare.formats import Example
from finetune_trainer.prepare.mix import Mix, build_mix
from finetune_trainer.prepare.row_issues import RowError, RowWarning
from finetune_trainer.prepare.row_reader import RowReader
from finetune_trainer.prepare.scan import SourceScan, detect_source_format, scan_source
from finetune_trainer.prepare.token_counts import SampleCounts, TokenCounts

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


def count_words(examples: list[Example]) -> list[TokenCounts]:
    """Replaces the tokenizer: a token per word. Examples with `endless` are too long; `odd` causes a warning."""
    counts = []
    for text in map(json.dumps, examples):
        count = len(text.split())
        error = RowError("truncated", "too long") if "endless" in text else None
        warnings = (RowWarning("odd", "odd"),) * ("odd" in text)
        samples = (SampleCounts(count, count),)
        counts.append(TokenCounts(samples, count, 1, error=error, warnings=warnings))
    return counts


def scan(
    directory: Path,
    *files: list[Any],
    name: Format | None = None,
    uri: str = URI,
    method: str = "sft",
    columns: dict[str, str] | None = None,
) -> SourceScan:
    """Scan files with these rows."""
    directory.mkdir(exist_ok=True)
    paths = []
    for number, rows in enumerate(files, 1):
        paths.append(directory / f"part-{number}.jsonl")
        paths[-1].write_bytes(lines(rows))
    reader = RowReader(Method.model_validate(METHODS[method]), columns=columns or {})
    name = name or detect_source_format(uri, paths, reader)
    return scan_source(uri, paths, name, reader, count_words, directory / "out" / "all.jsonl")


def mix(*scans: SourceScan, weights: Sequence[float] = (), seed: int = 42) -> Mix:
    """Return the mix of scans; by default all weights are 1."""
    sources = {
        f"dataset.mix[{index}]": MixedSource(uri=source.uri, weight=weight)
        for index, (source, weight) in enumerate(zip(scans, weights or [1] * len(scans), strict=True))
    }
    return build_mix(sources, scans, seed)


OTHER = {"role": "assistant", "content": "go away"}
