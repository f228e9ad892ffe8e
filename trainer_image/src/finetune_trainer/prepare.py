"""Checks the data before a GPU is taken: every row, the split, the tokens, the model's template."""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from finetune_api.conditions import Reason
from finetune_api.data import DataSource, Format, accepted_formats
from finetune_api.digest import digest_directory
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobfile import JobDirectory, JobFile
from finetune_api.mounts import TRAIN_TOKEN, VALIDATION_TOKEN
from finetune_api.reports import DatasetSummary, ExitCode, StageReport

from finetune_trainer.base_model import Tokenizer
from finetune_trainer.dataset import (
    Measure,
    Survey,
    check_survey,
    choose_heldout,
    count_duplicates,
    find_format,
    find_leaks,
    invalid,
    survey,
    write_parts,
)
from finetune_trainer.failures import StageError
from finetune_trainer.measure import measure
from finetune_trainer.schedule import Lengths, estimate_steps
from finetune_trainer.sources import below, find_data, find_model

_LOG = logging.getLogger(__name__)
_DEFAULT_HOLDOUT = 0.1


@dataclass(frozen=True)
class _Parts:
    """The data, checked and divided."""

    train: Survey
    """The survey of what is trained on; without a validation source of what is held out too."""
    lengths: Lengths
    """The lengths of the examples to train on."""
    heldout_examples: int


def prepare(job: JobFile, root: Path) -> StageReport:
    """Run the stage.

    Raises:
        StageError: the data or the model cannot be used.
    """
    directory = JobDirectory.of(job)
    tokenizer = Tokenizer(find_model(job.spec.model, root, weights=False), job.spec.model.uri)
    report = below(root, directory.report("prepare"))
    surveys: list[Survey] = []
    try:
        parts = _read(job, root, partial(measure, tokenizer, job.spec.hyperparameters.max_length), surveys)
    except StageError:
        _write_report(report, surveys, {})
        raise
    summary = _summarise(job.spec, parts, surveys, below(root, directory.train_data).parent)
    statistics = summary.to_dict() | {
        "tokensQuantiles": _quantiles(parts.train.tokens),
        "turnsQuantiles": _quantiles(parts.train.turns),
    }
    _write_report(report, surveys, statistics)
    message = (
        f"{summary.train_examples} to train on, {summary.heldout_examples} held out, {summary.train_tokens} tokens, "
        f"taken for {summary.format}"
    )
    _LOG.info("%s", message)
    return StageReport(outcome="Succeeded", reason=Reason.SUCCEEDED, message=message, dataset=summary)


def _read(job: JobFile, root: Path, measure: Measure, surveys: list[Survey]) -> _Parts:
    """Go through the sources and divide them; each survey is kept, for the report of what is wrong."""
    spec, directory = job.spec, JobDirectory.of(job)
    train_path, heldout_path = below(root, directory.train_data), below(root, directory.heldout_data)

    def read(source: DataSource, token: str, path: Path) -> Survey:
        files = find_data(source, root, token)
        name = surveys[0].format if surveys else spec.dataset.format or find_format(source.uri, files)
        _check_format(spec, source.uri, name)
        found = survey(source.uri, files, name, measure, path)
        surveys.append(found)
        _LOG.info("%s: %d examples, %d wrong", source.uri, len(found.numbers), found.wrong)
        return found

    if spec.dataset.validation is None:
        train = read(spec.dataset.train, TRAIN_TOKEN, train_path.with_name("all.jsonl"))
        check_survey(train)
        is_heldout = choose_heldout(train, spec.dataset.holdout or _DEFAULT_HOLDOUT, spec.hyperparameters.seed)
        write_parts(train, is_heldout, train_path, heldout_path)
        return _Parts(train, np.asarray(train.tokens)[~is_heldout], int(is_heldout.sum()))
    train = read(spec.dataset.train, TRAIN_TOKEN, train_path)
    heldout = read(spec.dataset.validation, VALIDATION_TOKEN, heldout_path)
    check_survey(train)
    find_leaks(train, heldout)
    check_survey(heldout)
    return _Parts(train, np.asarray(train.tokens), len(heldout.numbers))


def _check_format(spec: FineTuneJobSpec, uri: str, name: Format | None) -> None:
    """Refuse data that the method does not learn from, and gates that compare answers where there are none."""
    accepted = accepted_formats(_method_of(spec))
    if name and name not in accepted:
        raise invalid(
            f"{uri}: the rows are taken for {name} by their fields;"
            f" method.{_method_of(spec)} learns from {', '.join(accepted)}"
        )
    asked = [gate.metric for gate in spec.evaluation.gates if gate.metric != "Perplexity"]
    if name == "Text" and asked:
        raise StageError(
            ExitCode.BAD_CONFIG,
            Reason.INVALID_SPEC,
            f"evaluation.gates asks for {asked[0]}, which compares answers, and plain text has none: use Perplexity",
        )


def _method_of(spec: FineTuneJobSpec) -> str:
    """Return the name of the method's field."""
    return next(iter(spec.method.to_dict()))


def _summarise(spec: FineTuneJobSpec, parts: _Parts, surveys: list[Survey], directory: Path) -> DatasetSummary:
    return DatasetSummary(
        format=parts.train.format,
        train_examples=len(parts.lengths),
        heldout_examples=parts.heldout_examples,
        train_tokens=int(parts.lengths.sum()),
        longest_example_tokens=max(max(one.tokens) for one in surveys),
        truncated_examples=int((parts.lengths > spec.hyperparameters.max_length).sum()),
        duplicates=count_duplicates(parts.train),
        steps=estimate_steps(spec, parts.lengths),
        digest=digest_directory(directory),
    )


def _quantiles(values: Any) -> dict[str, int]:
    shares = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
    found = np.quantile(np.asarray(values), list(shares.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(shares, found, strict=True)}


def _write_report(path: Path, surveys: list[Survey], statistics: dict[str, Any]) -> None:
    report = {
        "files": [
            {
                "uri": found.uri,
                "format": found.format,
                f"{found.unit}s": found.read,
                "wrong": found.wrong,
                "counts": dict(found.counts),
                "errors": [
                    {"kind": kind, "place": place, "message": message}
                    for kind, listed in found.problems.items()
                    for place, message in listed
                ],
                "ignoredFields": dict(found.ignored),
            }
            for found in surveys
        ],
        "statistics": statistics,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False))
