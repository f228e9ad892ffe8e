"""Turns the prepared examples into the data sets that TRL's trainers read."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from finetune_api.finetunejob import FineTuneJobSpec

from finetune_trainer.prepared import read_examples
from finetune_trainer.tokenizer import Tokenizer

_BATCH = 256


def load_examples(path: Path, spec: FineTuneJobSpec, tokenizer: Tokenizer, cache: Path) -> Any:
    """Return prepared examples as a `datasets.Dataset`, which lies in files and not in memory.

    Columns: for sft `input_ids` and `labels`, both of the sequence's length in tokens, -100 where nothing is learnt;
    for the other methods the messages, which TRL renders itself. Arguments of tool calls differ from row to row, so
    messages are columns of JSON: a column of Arrow's would fill them up with nulls.

    Raises:
        StageError: the file is missing.
    """
    from datasets import Dataset, Features, Json, List, Value

    def build(rows: Callable[[], Iterator[dict[str, Any]]], columns: dict[str, Any]) -> Any:
        # A name of its own saves the hash over the tokenizer; the cache lives no longer than the training.
        return Dataset.from_generator(rows, Features(columns), str(cache), fingerprint=path.stem)

    if spec.method.sft:
        learns_all = not spec.method.sft.assistant_only_loss
        longest = spec.hyperparameters.max_length
        columns = {"input_ids": List(Value("int32")), "labels": List(Value("int64"))}
        return build(lambda: _tokenize(path, tokenizer, longest, learns_all=learns_all), columns)
    first = next(read_examples(path))
    if spec.method.grpo:
        return build(lambda: _prompts(path), {"prompt": Json(), "reference": Value("string")})
    columns = {key: Value("bool") if key == "label" else Json() for key in first if key != "tools"}
    return build(lambda: _pairs(path), columns | {"tools": Value("string")})


def _tokenize(path: Path, tokenizer: Tokenizer, longest: int, *, learns_all: bool) -> Iterator[dict[str, Any]]:
    """Yield token ids and labels; a conversation that is too long loses its tail."""
    examples = read_examples(path)
    while batch := [tokenizer.render(example) for example in islice(examples, _BATCH)]:
        for encoded in tokenizer.encode(batch):
            ids = encoded.ids[:longest]
            yield {"input_ids": ids, "labels": ids if learns_all else encoded.labels[:longest].tolist()}


def _prompts(path: Path) -> Iterator[dict[str, Any]]:
    for example in read_examples(path):
        yield {"prompt": example["prompt"], "reference": json.dumps(example["reference"])}


def _pairs(path: Path) -> Iterator[dict[str, Any]]:
    for example in read_examples(path):
        tools = example.get("tools")
        yield example | {"tools": json.dumps(tools) if tools else None}
