"""Checks the data before a GPU is taken: every row, the split, the tokens, the model's template."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from finetune_api.conditions import Reason
from finetune_api.data import DataSource, Format, accepted_formats
from finetune_api.digest import digest_directory
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobfile import JobDirectory, JobFile
from finetune_api.mounts import TRAIN_TOKEN, VALIDATION_TOKEN
from finetune_api.reports import ChosenHyperparameters, DatasetSummary, ExitCode, StageReport

from finetune_trainer.base_model import Tokenizer
from finetune_trainer.dataset import (
    Survey,
    check_survey,
    choose_heldout,
    count_duplicates,
    find_leaks,
    survey,
    write_parts,
)
from finetune_trainer.failures import StageError
from finetune_trainer.measure import Measurer
from finetune_trainer.schedule import choose, estimate_steps
from finetune_trainer.sources import below, find_data, find_model

_LOG = logging.getLogger(__name__)
_DEFAULT_HOLDOUT = 0.1


def prepare(job: JobFile, root: Path) -> StageReport:
    """Run the stage.

    Raises:
        StageError: the data or the model cannot be used.
    """
    spec, directory = job.spec, JobDirectory.of(job)
    longest = spec.hyperparameters.max_length
    train_path, heldout_path = below(root, directory.train_data), below(root, directory.heldout_data)
    tokenizer = Tokenizer(find_model(spec.model, root, weights=False), spec.model.uri)
    measurer = Measurer(tokenizer, longest)
    surveys: list[Survey] = []

    def read(source: DataSource, token: str, path: Path) -> Survey:
        files = find_data(source, root, token)
        wanted = surveys[0].format if surveys else spec.dataset.format
        found = survey(source.uri, files, wanted, accepted_formats(spec.method.name), measurer.measure, path)
        surveys.append(found)
        _LOG.info("%s: %d examples, %d wrong", source.uri, len(found.numbers), found.wrong)
        return found

    try:
        if spec.dataset.validation is None:
            train = read(spec.dataset.train, TRAIN_TOKEN, train_path.with_name("all.jsonl"))
            check_survey(train)
            is_heldout = choose_heldout(train, spec.dataset.holdout or _DEFAULT_HOLDOUT, spec.hyperparameters.seed)
            write_parts(train, is_heldout, train_path, heldout_path)
            lengths, heldout_examples = np.asarray(train.tokens)[~is_heldout], int(is_heldout.sum())
        else:
            train = read(spec.dataset.train, TRAIN_TOKEN, train_path)
            heldout = read(spec.dataset.validation, VALIDATION_TOKEN, heldout_path)
            check_survey(train)
            find_leaks(train, heldout)
            check_survey(heldout)
            lengths, heldout_examples = np.asarray(train.tokens), len(heldout.numbers)
    except StageError:
        _write_report(below(root, directory.report("prepare")), surveys, {})
        raise
    _check_gates(spec, train.format)
    chosen = _choose(spec, len(lengths))
    summary = DatasetSummary(
        format=train.format,
        train_examples=len(lengths),
        heldout_examples=heldout_examples,
        train_tokens=int(lengths.sum()),
        longest_example_tokens=max(max(one.tokens) for one in surveys),
        truncated_examples=int((lengths > longest).sum()),
        duplicates=count_duplicates(train),
        steps=estimate_steps(spec, chosen, lengths),
        digest=digest_directory(train_path.parent),
    )
    statistics = summary.to_dict() | {
        "tokensQuantiles": _quantiles(train.tokens),
        "turnsQuantiles": _quantiles(train.turns),
    }
    _write_report(below(root, directory.report("prepare")), surveys, statistics)
    message = (
        f"{summary.train_examples} to train on, {heldout_examples} held out, {summary.train_tokens} tokens, "
        f"taken for {summary.format}"
    )
    _LOG.info("%s", message)
    return StageReport(
        outcome="Succeeded", reason=Reason.SUCCEEDED, message=message, dataset=summary, hyperparameters=chosen
    )


def _choose(spec: FineTuneJobSpec, examples: int) -> ChosenHyperparameters:
    """Choose the hyperparameters before a GPU is taken."""
    try:
        return choose(spec, examples)
    except ValueError as error:
        raise StageError(ExitCode.BAD_CONFIG, Reason.INVALID_SPEC, str(error)) from None


def _check_gates(spec: FineTuneJobSpec, found: Format | None) -> None:
    """Refuse gates that compare answers where there are none."""
    asked = [gate.metric for gate in spec.evaluation.gates if gate.metric != "Perplexity"]
    if found == "Text" and asked:
        raise StageError(
            ExitCode.BAD_CONFIG,
            Reason.INVALID_SPEC,
            f"evaluation.gates asks for {asked[0]}, which compares answers, and plain text has none: use Perplexity",
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
