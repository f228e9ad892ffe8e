"""The prepare stage: checks data and model, splits the data, and estimates the training, before the job gets a GPU."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.reports import StageReport
from finetune_api.estimate import Estimate, GpuKind, describe_estimate
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters, DatasetSummary

from finetune_trainer.export.destinations import check_destinations
from finetune_trainer.failures import StageError
from finetune_trainer.fetch.sources import find_model
from finetune_trainer.prepare.dataset import PreparedData, prepare_dataset, summarize
from finetune_trainer.prepare.decisions import add_warnings, explain_no_packing, write_decisions
from finetune_trainer.prepare.estimate import choose_rate, estimate_training, explain_memory_shortage
from finetune_trainer.prepare.evaluation_check import check_evaluation_on_heldout
from finetune_trainer.prepare.kept_result import leave_out_known
from finetune_trainer.prepare.model_check import check_model_support, explain_layers, explain_renderer
from finetune_trainer.prepare.provenance import describe_model
from finetune_trainer.prepare.report import PrepareReport
from finetune_trainer.prepare.shape import ModelShape, read_shape
from finetune_trainer.prepare.step_geometry import SampleLengths, build_geometry
from finetune_trainer.prepare.template_check import read_chat_template
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
    template = read_chat_template(job, shape, directory.root)
    today = directory.read_template_date() or datetime.now(UTC).date()
    tokenizer = Tokenizer(model_directory, spec.model.uri, today, template)
    check_model_support(spec, shape, tokenizer.max_token_id)
    if spec.compute.resources.gpus and not job.kept:
        try_training_step(spec, model_directory, tokenizer.tokenizer)
    packing_problem = "" if job.kept else explain_no_packing(spec, model_directory)
    report = PrepareReport(directory.report("prepare"), describe_model(spec.model, model_directory, directory.root))
    try:
        data = prepare_dataset(spec, directory, tokenizer, report)
    except StageError:
        report.write({})
        raise
    if job.warm_start and job.warm_start.is_kept:
        data = replace(data, heldout_examples=leave_out_known(job.warm_start, directory, data.mix.warnings))
    template_date = today if tokenizer.encoder.template.prints_date else None
    hyperparameters = _choose_hyperparameters(spec, shape, data, can_pack=not packing_problem)
    write_decisions(directory, hyperparameters, template_date, template)
    problems = {"packing": packing_problem, "renderer": explain_renderer(shape), "layers": explain_layers(spec, shape)}
    add_warnings(spec, data.mix.warnings, data.heldout_examples, problems, template_date)
    check_evaluation_on_heldout(spec, directory.heldout_data, tokenizer)
    summary = summarize(spec, hyperparameters, data, report.scans, template, directory.train_data.parent)
    estimate = _estimate(spec, hyperparameters, shape, data.lengths, None if job.kept else kind, currency)
    report.write(_compute_statistics(summary, estimate, data))
    message = f"format {data.mix.formats}, {summary.train_tokens} tokens, {summary.describe()}"
    _LOG.info("%s", message)
    return StageReport(
        outcome="Succeeded",
        reason=Reason.SUCCEEDED,
        message=message,
        dataset=summary,
        hyperparameters=hyperparameters,
        estimate=None if job.kept else estimate,
    )


def _choose_hyperparameters(
    spec: FineTuneJobSpec, shape: ModelShape, data: PreparedData, *, can_pack: bool
) -> ChosenHyperparameters:
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
        data.mix.warnings.add("all", "steps", explain_few_steps(chosen, steps))
    if spec.adapter.low_rank is None:
        return chosen
    layers, _ = choose_target_modules(spec, shape.linear_layers, shape.architectures)
    return chosen.model_copy(update={"target_modules": list_kinds(layers)})


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
    _LOG.info("%s", describe_estimate(estimate, on_gpu=geometry.on_gpu))
    return estimate


def _compute_statistics(summary: DatasetSummary, estimate: Estimate, data: PreparedData) -> dict[str, Any]:
    mix = data.mix
    return summary.to_dict() | {
        "estimate": estimate.to_dict(),
        "targetTokens": int((data.copies * mix.collect("target_tokens")).sum()),
        "tokensQuantiles": _compute_quantiles(mix.collect("longest")[mix.included]),
        "turnsQuantiles": _compute_quantiles(mix.collect("message_counts")[mix.included]),
    }


def _compute_quantiles(values: Any) -> dict[str, int]:
    fractions = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
    quantiles = np.quantile(np.asarray(values), list(fractions.values()), method="inverted_cdf")
    return {name: int(quantile) for name, quantile in zip(fractions, quantiles, strict=True)}
