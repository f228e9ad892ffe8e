"""Checks the data before a GPU is taken: every line, the split, the tokens, the model's template."""

import json
import logging
from pathlib import Path
from typing import Any

from finetune_api.chat import TemplateError, parse_arguments
from finetune_api.conditions import Reason
from finetune_api.digest import digest_directory
from finetune_api.jobfile import JobDirectory, JobFile
from finetune_api.mounts import TRAIN_TOKEN, VALIDATION_TOKEN
from finetune_api.reports import DatasetSummary, StageReport

from finetune_trainer.base_model import Tokenizer
from finetune_trainer.dataset import (
    Conversation,
    DataFile,
    add_error,
    check_files,
    find_leaks,
    question_of,
    read_file,
    split,
    write_conversations,
)
from finetune_trainer.failures import StageError
from finetune_trainer.schedule import estimate_steps
from finetune_trainer.sources import below, find_data, find_model

_LOG = logging.getLogger(__name__)
_DEFAULT_HOLDOUT = 0.1


def prepare(job: JobFile, root: Path) -> StageReport:
    """Run the stage.

    Raises:
        StageError: the data or the model cannot be used.
    """
    spec = job.spec
    directory = JobDirectory.of(job)
    sources = [(spec.dataset.train, TRAIN_TOKEN), (spec.dataset.validation, VALIDATION_TOKEN)]
    files = [read_file(find_data(source, root, token), source.uri) for source, token in sources if source]
    try:
        check_files(files)
        model = find_model(spec.model, root, weights=False)
        tokenizer = Tokenizer(model, spec.model.uri)
        lengths = _measure(files, tokenizer, spec.hyperparameters.max_length)
        if len(files) == 2:
            find_leaks(*files)
        check_files(files)
    except StageError:
        _write_report(below(root, directory.report("prepare")), files, {})
        raise
    if len(files) == 2:
        train, heldout = files[0].conversations, files[1].conversations
        train_lengths = lengths[: len(train)]
    else:
        fraction = spec.dataset.holdout or _DEFAULT_HOLDOUT
        train, heldout = split(files[0].conversations, fraction, spec.hyperparameters.seed)
        kept = {id(conversation) for conversation in train}
        train_lengths = [length for one, length in zip(files[0].conversations, lengths, strict=True) if id(one) in kept]
    train_path = below(root, directory.train_data)
    write_conversations(train_path, train)
    write_conversations(below(root, directory.heldout_data), heldout)
    summary = DatasetSummary(
        train_examples=len(train),
        heldout_examples=len(heldout),
        train_tokens=sum(train_lengths),
        longest_example_tokens=max(lengths),
        truncated_examples=sum(length > spec.hyperparameters.max_length for length in train_lengths),
        steps=estimate_steps(spec, train_lengths),
        digest=digest_directory(train_path.parent),
    )
    statistics = summary.to_dict() | {
        "tokensQuantiles": _quantiles(train_lengths),
        "turnsQuantiles": _quantiles([len(one["messages"]) for one in train]),
        "duplicates": len(train) - len({question_of(one) for one in train}),
    }
    _write_report(below(root, directory.report("prepare")), files, statistics)
    message = f"{len(train)} to train on, {len(heldout)} held out, {summary.train_tokens} tokens"
    _LOG.info("%s", message)
    return StageReport(outcome="Succeeded", reason=Reason.SUCCEEDED, message=message, dataset=summary)


def _measure(files: list[DataFile], tokenizer: Tokenizer, longest: int) -> list[int]:
    """Return the tokens of each conversation, in order; what the template cannot render becomes an error."""
    lengths = []
    for data in files:
        for conversation, line in zip(data.conversations, data.lines, strict=True):
            length, problem = _measure_one(conversation, tokenizer, longest)
            lengths.append(length)
            if problem:
                add_error(data, line, problem)
        _LOG.info("%s: %d conversations counted", data.uri, len(data.conversations))
    return lengths


def _measure_one(conversation: Conversation, tokenizer: Tokenizer, longest: int) -> tuple[int, str]:
    messages = parse_arguments(conversation["messages"])
    try:
        rendered = tokenizer.render(messages, conversation.get("tools"))
    except TemplateError as error:
        return 0, f"the model's {error}"
    lost = _find_lost(messages, rendered.text)
    if lost:
        return 0, f"the model's chat template leaves out {lost}: use a model whose template knows it"
    ids, labels = tokenizer.encode(rendered)
    if all(label == -100 for label in labels[:longest]):
        return len(ids), f"its first {longest} tokens hold no answer: raise hyperparameters.maxLength"
    return len(ids), ""


def _find_lost(messages: list[dict[str, Any]], text: str) -> str:
    """Name the first part of a conversation that the rendered text does not hold."""
    for index, message in enumerate(messages):
        content = message.get("content")
        if content and content.strip() not in text:
            return f"messages[{index}].content"
        for number, call in enumerate(message.get("tool_calls") or []):
            if call["function"]["name"] not in text:
                return f"messages[{index}].tool_calls[{number}]"
    return ""


def _quantiles(values: list[int]) -> dict[str, int]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{percent}": ordered[min(percent * len(ordered) // 100, last)] for percent in (5, 50, 95)} | {
        "max": ordered[last]
    }


def _write_report(path: Path, files: list[DataFile], statistics: dict[str, Any]) -> None:
    report = {
        "files": [
            {
                "uri": data.uri,
                "lines": data.read,
                "wrong": data.wrong,
                "errors": [{"line": line, "message": message} for line, message in data.errors],
            }
            for data in files
        ],
        "statistics": statistics,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False))
