"""Checks data and model before a GPU is taken: every row, the split, the tokens, what the training will take."""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.mounts import TRAIN, VALIDATION, Source
from finetune_api.contract.reports import StageReport
from finetune_api.data import DataSource, Format, accepted_formats
from finetune_api.digest import digest_directory
from finetune_api.estimate import GpuKind, describe_estimate
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters, DatasetSummary

from finetune_trainer.export.destinations import check_destinations
from finetune_trainer.failures import StageError
from finetune_trainer.fetch.sources import find_data, find_model
from finetune_trainer.prepare.conversions import convert_example
from finetune_trainer.prepare.dataset import Measure, Survey, find_format, invalid, survey
from finetune_trainer.prepare.estimate import estimate, find_misfit, find_rate
from finetune_trainer.prepare.evaluation_check import check_evaluation
from finetune_trainer.prepare.measure import measure
from finetune_trainer.prepare.model_check import check_fitness
from finetune_trainer.prepare.provenance import describe_files, describe_model
from finetune_trainer.prepare.shape import read_shape
from finetune_trainer.prepare.split import (
    check_survey,
    choose_heldout,
    find_leaks,
    warn_of_labels,
    warn_of_repeats,
    write_parts,
)
from finetune_trainer.prepare.step_geometry import ExampleLengths, build_setup
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.schedule import choose, estimate_steps

_LOG = logging.getLogger(__name__)
_DEFAULT_HOLDOUT = 0.1


@dataclass(frozen=True)
class _Parts:
    """The data, checked and divided."""

    train: Survey
    """The survey of what is trained on; without a validation source of what is held out too."""
    is_trained: np.ndarray[Any, np.dtype[np.bool_]]
    """Which examples of it are trained on."""
    heldout_examples: int
    duplicates: int

    @property
    def lengths(self) -> ExampleLengths:
        """The lengths of what is trained on."""
        tokens, longest = (np.asarray(one)[self.is_trained] for one in (self.train.tokens, self.train.longest))
        return ExampleLengths(tokens, longest)


def prepare(job: JobFile, directory: JobDirectory, kind: GpuKind | None, currency: str) -> StageReport:
    """Run the stage.

    Args:
        job: the job.
        directory: its directory.
        kind: the GPU that the training will get, as far as the administrator has described it.
        currency: that of the administrator's prices.

    Raises:
        StageError: the data or the model cannot be used, or the training would not fit into the GPU.
    """
    check_destinations(job)
    model_directory = find_model(job.spec.model, directory.root, weights=False)
    shape = read_shape(model_directory, job.spec.model.uri)
    tokenizer = Tokenizer(model_directory, job.spec.model.uri)
    check_fitness(job.spec, shape, tokenizer.largest_token)
    sources = [describe_model(job.spec.model.uri, model_directory)]
    report = directory.report("prepare")
    surveys: list[Survey] = []
    try:
        parts = _read(job.spec, directory, _build_measure(job.spec, tokenizer), surveys, sources)
    except StageError:
        _write_report(report, sources, surveys, {})
        raise
    check_evaluation(job.spec, directory.heldout_data, tokenizer)
    chosen = _choose(job.spec, int(parts.is_trained.sum()))
    summary = _summarise(job.spec, chosen, parts, surveys, directory.train_data.parent)
    figures = estimate(build_setup(job.spec, chosen, shape, parts.lengths), shape, find_rate(job.spec, kind, currency))
    misfit = find_misfit(job.spec, chosen, shape, parts.lengths, figures.gpu_memory)
    if misfit:
        raise StageError(Reason.GPU_TOO_SMALL, misfit)
    _LOG.info("%s", describe_estimate(figures))
    statistics = summary.to_dict() | {
        "estimate": figures.to_dict(),
        "learntTokens": int(np.asarray(parts.train.learnt)[parts.is_trained].sum()),
        "tokensQuantiles": _quantiles(parts.train.longest),
        "turnsQuantiles": _quantiles(parts.train.turns),
    }
    _write_report(report, sources, surveys, statistics)
    message = f"taken for {summary.format}, {summary.train_tokens} tokens, {summary.describe()}"
    _LOG.info("%s", message)
    return StageReport(
        outcome="Succeeded",
        reason=Reason.SUCCEEDED,
        message=message,
        dataset=summary,
        hyperparameters=chosen,
        estimate=figures,
    )


def _build_measure(spec: FineTuneJobSpec, tokenizer: Tokenizer) -> Measure:
    learns_all = spec.method.sft is not None and not spec.method.sft.assistant_only_loss
    return partial(measure, tokenizer, spec.hyperparameters.max_length, learns_all=learns_all)


def _read(
    spec: FineTuneJobSpec,
    directory: JobDirectory,
    measure: Measure,
    surveys: list[Survey],
    sources: list[dict[str, Any]],
) -> _Parts:
    """Go through the sources and divide them; each survey is kept, for the report of what was read and is wrong."""
    train_path, heldout_path = directory.train_data, directory.heldout_data

    def read(source: DataSource, role: Source, path: Path) -> Survey:
        files = find_data(source, directory.root, role)
        sources.append(describe_files(source.uri, files))
        name = surveys[0].format if surveys else spec.dataset.format or find_format(source.uri, files)
        _check_format(spec, source.uri, name)
        found = survey(source.uri, files, name, partial(convert_example, spec.method), measure, path)
        surveys.append(found)
        _LOG.info("%s: %d examples, %d wrong", source.uri, len(found.numbers), found.wrong)
        return found

    if spec.dataset.validation is None:
        train = read(spec.dataset.train, TRAIN, train_path.with_name("all.jsonl"))
        check_survey(train)
        is_heldout = choose_heldout(train, spec.dataset.holdout or _DEFAULT_HOLDOUT, spec.hyperparameters.seed)
        write_parts(train, is_heldout, train_path, heldout_path)
        heldout_examples = int(is_heldout.sum())
    else:
        train = read(spec.dataset.train, TRAIN, train_path)
        heldout = read(spec.dataset.validation, VALIDATION, heldout_path)
        check_survey(train)
        find_leaks(train, heldout)
        check_survey(heldout)
        is_heldout = np.zeros(len(train.numbers), dtype=bool)
        heldout_examples = len(heldout.numbers)
    for found in surveys:
        warn_of_labels(found)
    return _Parts(train, ~is_heldout, heldout_examples, warn_of_repeats(train))


def _check_format(spec: FineTuneJobSpec, uri: str, name: Format | None) -> None:
    """Refuse data that the method does not learn from."""
    accepted = accepted_formats(spec.method.name)
    if name and name not in accepted:
        raise invalid(
            f"{uri}: the rows are taken for {name} by their fields;"
            f" method.{spec.method.name} learns from {', '.join(accepted)}: give such rows, or choose another method"
        )


def _choose(spec: FineTuneJobSpec, examples: int) -> ChosenHyperparameters:
    """Choose the hyperparameters before a GPU is taken."""
    try:
        return choose(spec, examples)
    except ValueError as error:
        raise StageError(Reason.INVALID_SPEC, str(error)) from None


def _summarise(
    spec: FineTuneJobSpec, chosen: ChosenHyperparameters, parts: _Parts, surveys: list[Survey], directory: Path
) -> DatasetSummary:
    tokens, longest = parts.lengths.tokens, parts.lengths.longest
    warned: Counter[str] = sum((found.warnings.counts for found in surveys), Counter())
    return DatasetSummary(
        format=parts.train.format,
        train_examples=len(tokens),
        heldout_examples=parts.heldout_examples,
        train_tokens=int(tokens.sum()),
        longest_example_tokens=max(max(one.longest) for one in surveys),
        truncated_examples=int((longest > spec.hyperparameters.max_length).sum()),
        duplicates=parts.duplicates,
        warnings=dict(sorted(warned.items())) or None,
        steps=estimate_steps(spec, chosen, longest),
        digest=digest_directory(directory),
    )


def _quantiles(values: Any) -> dict[str, int]:
    shares = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
    found = np.quantile(np.asarray(values), list(shares.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(shares, found, strict=True)}


def _write_report(path: Path, sources: list[dict[str, Any]], surveys: list[Survey], statistics: dict[str, Any]) -> None:
    report = {
        "sources": sources,
        "files": [
            {
                "uri": found.uri,
                "format": found.format,
                f"{found.unit}s": found.read,
                "wrong": found.wrong,
                "counts": dict(found.errors.counts),
                "errors": found.errors.to_list(),
                "warningCounts": dict(found.warnings.counts),
                "warnings": found.warnings.to_list(),
                "ignoredFields": dict(found.ignored),
            }
            for found in surveys
        ],
        "statistics": statistics,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False))
