"""Turns the prepared examples into the datasets that TRL's trainers read: token ids, for every method."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_pod.chat import EncodedExample
from finetune_pod.fingerprints import hash_prompt
from finetune_pod.template import TemplateError

from finetune_trainer.prepared import read_examples
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.schedule import count_validation_examples

_BATCH = 256
"""Examples that are tokenized at a time."""
Row = dict[str, Any]


def load_examples(path: Path, spec: FineTuneJobSpec, tokenizer: Tokenizer, cache: Path) -> Any:
    """Return the prepared examples as a `datasets.Dataset`, which reads from files instead of memory.

    All columns with ids are lists of token ids, truncated so that prompt and answer together have `maxLength` tokens:

        sft           input_ids, and labels: the loss ignores label -100
        dpo, orpo     prompt_ids, chosen_ids, rejected_ids
        reward        chosen_ids, rejected_ids, with the prompt
        kto           prompt_ids, completion_ids, and label
        grpo          prompt: its token ids as JSON; and reference: the fields for the graders as JSON

    With early stopping there is also the column `group`, which is the same for examples with the same prompt.

    Args:
        path: the prepared examples.
        spec: the spec of the job.
        tokenizer: the tokenizer of the model.
        cache: directory for the files of the dataset.

    Raises:
        StageError: the file is missing.
    """
    from datasets import Dataset, Features, List, Value

    max_length = spec.hyperparameters.max_length
    ids = List(Value("int32"))
    columns: dict[str, Any] = dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), ids)

    def build() -> Iterator[Row]:
        for example, encoded in _encode(path, tokenizer, max_length):
            group = {"group": hash_prompt(example) >> 1} if spec.hyperparameters.early_stopping else {}
            for row in _build_rows(spec, example, encoded):
                yield row | group

    match spec.method.name:
        case "sft":
            columns = {"input_ids": ids, "labels": List(Value("int64"))}
        case "grpo":
            columns = {"prompt": Value("string"), "reference": Value("string")}
        case "kto":
            columns = {"prompt_ids": ids, "completion_ids": ids, "label": Value("bool")}
        case "reward":
            del columns["prompt_ids"]
    if spec.hyperparameters.early_stopping:
        columns["group"] = Value("int64")
    # An explicit fingerprint avoids hashing the tokenizer; the cache is deleted after the training.
    dataset = Dataset.from_generator(build, Features(columns), str(cache), fingerprint=path.stem)
    # KTO takes the examples in their order, and packing puts neighbors into one sequence for all epochs. Neighbors in
    # the file are often related: the answers of one preference, rows that were written one after the other.
    return dataset.shuffle(spec.hyperparameters.seed) if spec.method.kto or spec.method.sft else dataset


def _encode(path: Path, tokenizer: Tokenizer, max_length: int) -> Iterator[tuple[Row, EncodedExample]]:
    examples = read_examples(path)
    while batch := list(islice(examples, _BATCH)):
        for example, encoded in zip(batch, tokenizer.encoder.encode(batch, max_length), strict=True):
            if isinstance(encoded, TemplateError):  # Prepare has rendered the same example.
                raise encoded
            yield example, encoded


def split_validation(examples: Any, fraction: float, seed: int) -> tuple[Any, Any]:
    """Return the examples to train on, and those with which early stopping measures the loss.

    Examples with the same prompt, such as the turns of one conversation, are in the same part.
    """
    groups = np.asarray(examples["group"], dtype=np.int64)
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    wanted = count_validation_examples(len(groups), fraction)
    count = min(int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1, len(names) - 1)
    is_validation = np.isin(groups, names[order[:count]])
    examples = examples.remove_columns("group")
    return examples.select(np.flatnonzero(~is_validation)), examples.select(np.flatnonzero(is_validation))


def _build_rows(spec: FineTuneJobSpec, example: Row, encoded: EncodedExample) -> Iterator[Row]:
    """Yield the rows of an example for the method of a job."""
    max_length = spec.hyperparameters.max_length
    if spec.method.sft:
        yield from _build_sft(encoded, max_length, assistant_only_loss=spec.method.sft.assistant_only_loss)
    elif spec.method.grpo:
        (prompt,) = encoded.sequences["prompt"]
        yield {"prompt": json.dumps(prompt.ids), "reference": json.dumps(example["reference"])}
    else:
        yield _build_comparison(example, encoded, max_length, with_prompt=spec.method.reward is not None)


def _build_sft(encoded: EncodedExample, max_length: int, *, assistant_only_loss: bool) -> Iterator[Row]:
    """Yield every sequence of an example."""
    for sequence in chain.from_iterable(encoded.sequences.values()):
        ids = sequence.ids[:max_length]
        labels = sequence.labels[:max_length].tolist() if assistant_only_loss else ids
        yield {"input_ids": ids, "labels": labels}


def _build_comparison(example: Row, encoded: EncodedExample, max_length: int, *, with_prompt: bool) -> Row:
    """Return the answers of a preference, or the labeled completion."""
    row: Row = {"label": example["label"]} if "label" in example else {}
    for field, (answer,) in encoded.answers.items():
        ids = answer.ids[: max_length - len(answer.prompt)]
        row[f"{field}_ids"] = answer.prompt + ids if with_prompt else ids
        if not with_prompt:
            row["prompt_ids"] = answer.prompt
    return row
