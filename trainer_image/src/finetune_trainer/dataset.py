"""Reads the data files whole, splits them by the job's seed, and writes what training and evaluation read."""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.chat import parse_arguments
from finetune_api.conditions import Reason
from finetune_api.reports import ExitCode

from finetune_trainer.conversations import LineError, parse_conversation
from finetune_trainer.failures import StageError

Conversation = dict[str, Any]

_BOM = b"\xef\xbb\xbf"
_LISTED = 100
"""Wrong lines that the report lists; all are counted."""
_NAMED = 5
"""Wrong lines that the message names."""


@dataclass
class DataFile:
    """The conversations of one file, and what is wrong with it."""

    uri: str
    conversations: list[Conversation] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """The line number of each conversation, from 1."""
    errors: list[tuple[int, str]] = field(default_factory=list)
    wrong: int = 0
    read: int = 0


def read_file(path: Path, uri: str) -> DataFile:
    """Read and check every line; empty lines are passed over."""
    data = DataFile(uri)
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
            if not line:
                continue
            data.read += 1
            try:
                conversation = parse_conversation(line)
            except LineError as error:
                add_error(data, number, str(error))
            else:
                data.conversations.append(conversation)
                data.lines.append(number)
    return data


def add_error(data: DataFile, line: int, message: str) -> None:
    """Note that a line is wrong."""
    data.wrong += 1
    if len(data.errors) < _LISTED:
        data.errors.append((line, message))


def check_files(files: Iterable[DataFile]) -> None:
    """Refuse data with a wrong line.

    Raises:
        StageError: it names the file, how many lines are wrong, and the first of them.
    """
    for data in files:
        if data.read == 0:
            raise _invalid(f"{data.uri} is empty: give at least one conversation a line")
        if data.wrong:
            named = "; ".join(f"line {number}: {message[:160]}" for number, message in data.errors[:_NAMED])
            more = f"; and {data.wrong - _NAMED} more" if data.wrong > _NAMED else ""
            raise _invalid(f"{data.uri}: {data.wrong} of {data.read} lines are wrong: {named}{more}")


def split(
    conversations: list[Conversation], fraction: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Return the part to train on and the part to hold out, each in its order in the file.

    What is asked alike is held out alike: conversations with the same words before the last answer
    stay together, so that no question of the held-out part was trained on.

    Raises:
        StageError: there are too few conversations for both parts.
    """
    groups: dict[str, list[int]] = {}
    for index, conversation in enumerate(conversations):
        groups.setdefault(question_of(conversation), []).append(index)
    if len(groups) < 3:
        raise _invalid(f"{len(groups)} different conversations cannot be split: give more, or a validation file")
    keys = sorted(groups)
    random.Random(seed).shuffle(keys)  # noqa: S311 - a split, not a secret
    wanted = max(2, round(len(conversations) * fraction))
    heldout: set[int] = set()
    for key in keys[: len(keys) - 1]:
        if len(heldout) >= wanted:
            break
        heldout.update(groups[key])
    train = [one for index, one in enumerate(conversations) if index not in heldout]
    return train, [one for index, one in enumerate(conversations) if index in heldout]


def find_leaks(train: DataFile, heldout: DataFile) -> None:
    """Refuse held-out conversations whose question is trained on: they would prove nothing."""
    trained = {question_of(one): line for one, line in zip(train.conversations, train.lines, strict=True)}
    for conversation, line in zip(heldout.conversations, heldout.lines, strict=True):
        known = trained.get(question_of(conversation))
        if known is not None:
            add_error(heldout, line, f"the same question is in {train.uri} line {known}: it proves nothing")


def question_of(conversation: Conversation) -> str:
    """Return a digest of what comes before the last answer, without the system's words."""
    messages = conversation["messages"]
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    asked = [one for one in messages[:last] if one["role"] not in ("system", "developer")]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def write_conversations(path: Path, conversations: list[Conversation]) -> None:
    """Write conversations as the model's template wants them, one a line, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("w", encoding="utf-8") as file:
        for conversation in conversations:
            ready = conversation | {"messages": parse_arguments(conversation["messages"])}
            file.write(json.dumps(ready, ensure_ascii=False) + "\n")
    partial.replace(path)


def read_prepared(path: Path) -> Iterator[Conversation]:
    """Yield what `write_conversations` wrote.

    Raises:
        StageError: the file is missing.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except FileNotFoundError:
        raise StageError(
            ExitCode.NOT_FOUND,
            Reason.DATASET_NOT_FOUND,
            f"{path} is missing: was the claim emptied after prepare?",
        ) from None


def _invalid(message: str) -> StageError:
    return StageError(ExitCode.BAD_DATA, Reason.DATASET_INVALID, message)
