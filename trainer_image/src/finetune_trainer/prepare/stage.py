"""The prepare stage: checks data and model, splits the data, and estimates the training, before the job gets a GPU."""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
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
from finetune_api.estimate import Estimate, GpuKind, describe_estimate
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters, DatasetSummary
from numpy.typing import NDArray

from finetune_trainer.export.destinations import check_destinations
from finetune_trainer.failures import StageError
from finetune_trainer.fetch.sources import find_data, find_model
from finetune_trainer.prepare.data_quality import (
    check_rows,
    find_contamination,
    warn_about_duplicates,
    warn_about_rare_label,
)
from finetune_trainer.prepare.decisions import add_warnings, explain_no_packing, write_decisions
from finetune_trainer.prepare.estimate import choose_rate, estimate_training, explain_memory_shortage
from finetune_trainer.prepare.evaluation_check import check_evaluation_on_heldout
from finetune_trainer.prepare.kept_result import leave_out_known
from finetune_trainer.prepare.model_check import check_model_support, explain_layers, explain_renderer
from finetune_trainer.prepare.provenance import describe_files, describe_model
from finetune_trainer.prepare.report import PrepareReport
from finetune_trainer.prepare.row_reader import RowReader
from finetune_trainer.prepare.scan import SourceScan, dataset_invalid, detect_source_format, scan_source
from finetune_trainer.prepare.shape import ModelShape, read_shape
from finetune_trainer.prepare.split import choose_fraction, choose_heldout, write_split
from finetune_trainer.prepare.step_geometry import SampleLengths, build_geometry
from finetune_trainer.prepare.token_counts import count_tokens
from finetune_trainer.prepare.trial_step import try_training_step
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.schedule import (
    choose_hyperparameters,
    estimate_steps,
    explain_few_steps,
    explain_no_training,
)
from finetune_trainer.train.target_modules import choose_target_modules, list_kinds

_LOG = logging.getLogger(__name__)
_FEW_STEPS = 20
"""Fewer optimizer steps rarely change how a model answers, at the default learning rates."""


@dataclass(frozen=True)
class _PreparedData:
    """The data after all checks, and which of it is trained on."""

    train: SourceScan
    """The training source. Without a validation source, it includes the held-out examples."""
    is_trained: NDArray[np.bool_]
    """For each example of `train`, whether it is trained on."""
    heldout_examples: int
    duplicates: int

    @property
    def train_examples(self) -> int:
        """The number of examples that are trained on."""
        return int(self.is_trained.sum())

    @property
    def lengths(self) -> SampleLengths:
        """The lengths of the samples that are trained on."""
        scan = self.train
        is_trained = np.repeat(self.is_trained, scan.sample_counts)
        return SampleLengths(np.asarray(scan.sample_tokens)[is_trained], np.asarray(scan.sample_longest)[is_trained])


def prepare(job: JobFile, directory: JobDirectory, kind: GpuKind | None, currency: str) -> StageReport:
    """Run the stage.

    Args:
        job: the job.
        directory: its directory.
        kind: the GPU that the training will get, as far as the administrator described it.
        currency: of the administrator's prices.

    Raises:
        StageError: the data or the model cannot be used, or the training does not fit into the GPU.
    """
    spec = job.spec
    check_destinations(job)
    model_directory = find_model(spec.model, directory.root, weights=False)
    shape = read_shape(model_directory, spec.model.uri)
    today = directory.read_template_date() or datetime.now(UTC).date()
    tokenizer = Tokenizer(model_directory, spec.model.uri, today)
    check_model_support(spec, shape, tokenizer.max_token_id)
    if spec.compute.resources.gpus and not job.kept:
        try_training_step(spec, model_directory, tokenizer.tokenizer)
    packing_problem = "" if job.kept else explain_no_packing(spec, model_directory)
    report = PrepareReport(directory.report("prepare"), [describe_model(spec.model.uri, model_directory)])
    try:
        data = _prepare_data(spec, directory, tokenizer, report)
    except StageError:
        report.write({})
        raise
    if job.warm_start and job.warm_start.is_kept:
        data = replace(data, heldout_examples=leave_out_known(job.warm_start, directory, data.train.warnings))
    template_date = today if tokenizer.encoder.template.prints_date else None
    hyperparameters = _choose_hyperparameters(spec, data, can_pack=not packing_problem)
    if spec.adapter.low_rank:
        layers, _ = choose_target_modules(spec, shape.linear_layers, shape.architectures)
        hyperparameters = hyperparameters.model_copy(update={"target_modules": list_kinds(layers)})
    write_decisions(directory, hyperparameters, template_date)
    problems = {
        "packing": packing_problem,
        "renderer": explain_renderer(shape),
        "layers": explain_layers(spec, shape),
    }
    add_warnings(spec, data.train.warnings, data.heldout_examples, problems, template_date)
    check_evaluation_on_heldout(spec, directory.heldout_data, tokenizer)
    summary = _summarize(spec, hyperparameters, data, report.scans, directory.train_data.parent)
    estimate = _estimate(spec, hyperparameters, shape, data.lengths, None if job.kept else kind, currency)
    report.write(_compute_statistics(summary, estimate, data))
    message = f"format {summary.format}, {summary.train_tokens} tokens, {summary.describe()}"
    _LOG.info("%s", message)
    return StageReport(
        outcome="Succeeded",
        reason=Reason.SUCCEEDED,
        message=message,
        dataset=summary,
        hyperparameters=hyperparameters,
        estimate=None if job.kept else estimate,
    )


def _prepare_data(
    spec: FineTuneJobSpec, directory: JobDirectory, tokenizer: Tokenizer, report: PrepareReport
) -> _PreparedData:
    """Scan the sources, check them, and write the examples for training and evaluation."""
    train_path, heldout_path = directory.train_data, directory.heldout_data
    scan = partial(_scan, spec, directory.root, tokenizer, report)
    if spec.dataset.validation is None:
        train = scan(spec.dataset.train, TRAIN, train_path.with_name("all.jsonl"))
        check_rows(train)
        fraction = spec.dataset.holdout or choose_fraction(len(train.row_numbers), spec.evaluation.min_examples)
        is_heldout = choose_heldout(train, fraction, spec.hyperparameters.seed)
        write_split(train, is_heldout, train_path, heldout_path)
        heldout_examples = int(is_heldout.sum())
    else:
        train = scan(spec.dataset.train, TRAIN, train_path)
        heldout = scan(spec.dataset.validation, VALIDATION, heldout_path)
        check_rows(train)
        find_contamination(train, heldout)
        check_rows(heldout)
        is_heldout = np.zeros(len(train.row_numbers), dtype=bool)
        heldout_examples = len(heldout.row_numbers)
    for source in report.scans:
        warn_about_rare_label(source)
    return _PreparedData(train, ~is_heldout, heldout_examples, warn_about_duplicates(train))


def _scan(
    spec: FineTuneJobSpec,
    root: Path,
    tokenizer: Tokenizer,
    report: PrepareReport,
    source: DataSource,
    role: Source,
    path: Path,
) -> SourceScan:
    """Scan a source and add it to the report. All sources have the format of the first one."""
    files = find_data(source, root, role)
    report.sources.append(describe_files(source.uri, files))
    first = report.scans[0] if report.scans else None
    reader = RowReader.of(spec)
    row_format = first.format if first else spec.dataset.format or detect_source_format(source.uri, files, reader)
    _check_format(spec, source.uri, row_format)
    train_on_prompts = spec.method.sft is not None and not spec.method.sft.assistant_only_loss
    count = partial(count_tokens, tokenizer, spec.hyperparameters.max_length, train_on_prompts=train_on_prompts)
    scan = scan_source(source.uri, files, row_format, reader, count, path)
    report.scans.append(scan)
    _LOG.info("%s: %d examples, %d invalid rows", source.uri, len(scan.row_numbers), scan.invalid_rows)
    return scan


def _check_format(spec: FineTuneJobSpec, uri: str, row_format: Format | None) -> None:
    """Refuse data in a format that the method cannot train on."""
    accepted = accepted_formats(spec.method.name)
    if row_format and row_format not in accepted:
        raise dataset_invalid(
            f"{uri}: the rows have the format {row_format}, but method.{spec.method.name} trains on"
            f" {', '.join(accepted)}: use rows of such a format, or another method"
        )


def _choose_hyperparameters(spec: FineTuneJobSpec, data: _PreparedData, *, can_pack: bool) -> ChosenHyperparameters:
    """Choose the hyperparameters, and check that they make a training; few steps are a warning."""
    lengths = data.lengths.longest
    try:
        chosen = choose_hyperparameters(spec, lengths, can_pack=can_pack)
    except ValueError as error:
        raise StageError(Reason.INVALID_SPEC, str(error)) from None
    steps = estimate_steps(spec, chosen, lengths)
    if problem := explain_no_training(spec, chosen, len(lengths), steps):
        raise StageError(Reason.INVALID_SPEC, problem)
    if steps < _FEW_STEPS:
        data.train.warnings.add("all", "steps", explain_few_steps(chosen, steps))
    return chosen


def _summarize(
    spec: FineTuneJobSpec,
    hyperparameters: ChosenHyperparameters,
    data: _PreparedData,
    scans: list[SourceScan],
    directory: Path,
) -> DatasetSummary:
    lengths = data.lengths
    warnings: Counter[str] = sum((scan.warnings.counts for scan in scans), Counter())
    return DatasetSummary(
        format=data.train.format,
        train_examples=data.train_examples,
        heldout_examples=data.heldout_examples,
        train_tokens=int(lengths.tokens.sum()),
        longest_example_tokens=max(max(scan.longest) for scan in scans),
        truncated_examples=int(
            (np.asarray(data.train.longest)[data.is_trained] > spec.hyperparameters.max_length).sum()
        ),
        learned_answers=int(np.asarray(data.train.learned_answers)[data.is_trained].sum()),
        unlearned_answers=int(np.asarray(data.train.unlearned_answers)[data.is_trained].sum()),
        thinking_off=data.train.thinking_off == len(data.train.row_numbers),
        duplicates=data.duplicates,
        warnings=dict(sorted(warnings.items())) or None,
        steps=estimate_steps(spec, hyperparameters, lengths.longest),
        digest=digest_directory(directory),
    )


def _estimate(
    spec: FineTuneJobSpec,
    hyperparameters: ChosenHyperparameters,
    shape: ModelShape,
    lengths: SampleLengths,
    kind: GpuKind | None,
    currency: str,
) -> Estimate:
    """Estimate the training; refuse it if it does not fit into the GPU."""
    geometry = build_geometry(spec, hyperparameters, shape, lengths)
    estimate = estimate_training(geometry, shape, choose_rate(spec, kind, currency))
    shortage = explain_memory_shortage(spec, hyperparameters, shape, lengths, estimate.gpu_memory)
    if shortage:
        raise StageError(Reason.GPU_TOO_SMALL, shortage)
    _LOG.info("%s", describe_estimate(estimate))
    return estimate


def _compute_statistics(summary: DatasetSummary, estimate: Estimate, data: _PreparedData) -> dict[str, Any]:
    return summary.to_dict() | {
        "estimate": estimate.to_dict(),
        "targetTokens": int(np.asarray(data.train.target_tokens)[data.is_trained].sum()),
        "tokensQuantiles": _compute_quantiles(data.train.longest),
        "turnsQuantiles": _compute_quantiles(data.train.message_counts),
    }


def _compute_quantiles(values: Any) -> dict[str, int]:
    fractions = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
    quantiles = np.quantile(np.asarray(values), list(fractions.values()), method="inverted_cdf")
    return {name: int(quantile) for name, quantile in zip(fractions, quantiles, strict=True)}
