"""Turns the prepared examples into the datasets that TRL's trainers read."""

import json
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.template import TemplateError

from finetune_trainer.prepared import read_examples
from finetune_trainer.tokenizer import Tokenizer

_BATCH = 256
"""Examples that are tokenized at a time."""


def load_examples(path: Path, spec: FineTuneJobSpec, tokenizer: Tokenizer, cache: Path) -> Any:
    """Return the prepared examples as a `datasets.Dataset`, which reads from files instead of memory.

    The columns for sft are `input_ids` and `labels`, both of shape [sequence length]; the loss ignores label -100. The
    columns for the other methods are the messages, which TRL renders itself. The arguments of tool calls differ from
    row to row, so messages are JSON columns: Arrow would fill struct columns with nulls.

    Args:
        path: the prepared examples.
        spec: the spec of the job.
        tokenizer: the tokenizer of the model.
        cache: directory for the files of the dataset.

    Raises:
        StageError: the file is missing.
    """
    from datasets import Dataset, Features, Json, List, Value

    def build(generate: Callable[[], Iterator[dict[str, Any]]], columns: dict[str, Any]) -> Any:
        # An explicit fingerprint avoids hashing the tokenizer; the cache is deleted after the training.
        return Dataset.from_generator(generate, Features(columns), str(cache), fingerprint=path.stem)

    if spec.method.sft:
        assistant_only_loss = spec.method.sft.assistant_only_loss
        max_length = spec.hyperparameters.max_length
        columns = {"input_ids": List(Value("int32")), "labels": List(Value("int64"))}
        return build(lambda: _tokenize(path, tokenizer, max_length, assistant_only_loss=assistant_only_loss), columns)
    first = next(read_examples(path))
    if spec.method.grpo:
        return build(lambda: _read_prompts(path), {"prompt": Json(), "reference": Value("string")})
    columns = {key: Value("bool") if key == "label" else Json() for key in first if key != "tools"}
    return build(lambda: _read_preferences(path), columns | {"tools": Value("string")})


def _tokenize(
    path: Path, tokenizer: Tokenizer, max_length: int, *, assistant_only_loss: bool
) -> Iterator[dict[str, Any]]:
    """Yield token IDs and labels of every sequence, both truncated to `max_length`."""
    examples = read_examples(path)
    while batch := list(islice(examples, _BATCH)):
        for encoded in tokenizer.encoder.encode(batch, max_length):
            if isinstance(encoded, TemplateError):  # Prepare has rendered the same example.
                raise encoded
            for sequence in chain.from_iterable(encoded.sequences.values()):
                ids = sequence.ids[:max_length]
                labels = sequence.labels[:max_length].tolist() if assistant_only_loss else ids
                yield {"input_ids": ids, "labels": labels}


def _read_prompts(path: Path) -> Iterator[dict[str, Any]]:
    for example in read_examples(path):
        yield {"prompt": example["prompt"], "reference": json.dumps(example["reference"])}


def _read_preferences(path: Path) -> Iterator[dict[str, Any]]:
    for example in read_examples(path):
        tools = example.get("tools")
        yield example | {"tools": json.dumps(tools) if tools else None}
