"""The data of a job: scans its sources, checks them, and writes the examples for training and evaluation."""

import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from finetune_api.contract.jobfile import JobDirectory
from finetune_api.contract.mounts import VALIDATION, Source, train_source
from finetune_api.data import DataSource, Format, accepted_formats
from finetune_api.digest import digest_directory
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters, DatasetSummary, SourceSummary
from finetune_pod.template_file import TemplateFile
from numpy.typing import NDArray

from finetune_trainer.fetch.sources import find_data
from finetune_trainer.prepare.data_quality import (
    check_rows,
    find_contamination,
    warn_about_duplicates,
    warn_about_rare_label,
)
from finetune_trainer.prepare.mix import Copies, Mix, build_mix
from finetune_trainer.prepare.provenance import describe_files
from finetune_trainer.prepare.report import PrepareReport
from finetune_trainer.prepare.row_reader import RowReader
from finetune_trainer.prepare.scan import SourceScan, dataset_invalid, detect_source_format, scan_source
from finetune_trainer.prepare.split import choose_fraction, choose_heldout, write_heldout, write_train
from finetune_trainer.prepare.step_geometry import SampleLengths
from finetune_trainer.prepare.token_counts import count_tokens
from finetune_trainer.tokenizer import Tokenizer
from finetune_trainer.train.schedule import estimate_steps

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedData:
    """The data after all checks, and which of it is trained on."""

    mix: Mix
    """The training sources. Without a validation source, it includes the held-out examples."""
    heldout: NDArray[np.intp]
    """The indices of its held-out examples; empty with a validation source."""
    heldout_examples: int
    """The number of examples to evaluate."""
    duplicates: int

    @property
    def copies(self) -> Copies:
        """How many times an epoch trains on each example of the mix; 0 for held-out examples."""
        copies = self.mix.copies.copy()
        copies[self.heldout] = 0
        return copies

    @property
    def lengths(self) -> SampleLengths:
        """The lengths of the samples of an epoch."""
        return self.mix.measure(self.copies)


def prepare_dataset(
    spec: FineTuneJobSpec, directory: JobDirectory, tokenizer: Tokenizer, report: PrepareReport
) -> PreparedData:
    """Scan the sources, check them, and write the examples for training and evaluation.

    Raises:
        StageError: a source cannot be fetched, or its rows cannot be used.
    """
    train_path, heldout_path = directory.train_data, directory.heldout_data
    scan = partial(_scan, spec, directory.root, tokenizer, report)
    sources, validation, seed = spec.dataset.sources, spec.dataset.validation, spec.hyperparameters.seed
    scans = [
        scan(field, source, train_source(index), train_path.with_name(f"source-{index}.jsonl"))
        for index, (field, source) in enumerate(sources.items())
    ]
    heldout_scan = scan("dataset.validation", validation, VALIDATION, heldout_path) if validation else None
    check_rows(*scans, *([heldout_scan] if heldout_scan else []))
    mix = build_mix(sources, scans, seed)
    heldout = np.zeros(0, dtype=np.intp)
    if heldout_scan:
        find_contamination(mix, heldout_scan)
        check_rows(heldout_scan)
        warn_about_rare_label(np.asarray(heldout_scan.labels), heldout_scan.warnings)
    else:
        fraction = spec.dataset.holdout or choose_fraction(len(mix.included), spec.evaluation.min_examples)
        heldout = choose_heldout(mix, fraction, seed)
        write_heldout(mix, heldout, heldout_path)
    labels = mix.collect("labels")
    warn_about_rare_label(np.repeat(labels, mix.copies) if labels.size else labels, mix.warnings)
    heldout_examples = len(heldout_scan.row_numbers if heldout_scan else heldout)
    data = PreparedData(mix, heldout, heldout_examples, warn_about_duplicates(mix))
    write_train(mix, data.copies, train_path)
    for train_scan in scans:
        train_scan.path.unlink()
    return data


def _scan(
    spec: FineTuneJobSpec,
    root: Path,
    tokenizer: Tokenizer,
    report: PrepareReport,
    field: str,
    source: DataSource,
    role: Source,
    path: Path,
) -> SourceScan:
    """Scan a source and add it to the report."""
    files = find_data(source, root, role)
    report.sources.append(describe_files(source.uri, files))
    reader = RowReader.of(spec, field, source)
    row_format = source.format or detect_source_format(source.uri, files, reader)
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


def summarize(
    spec: FineTuneJobSpec,
    hyperparameters: ChosenHyperparameters,
    data: PreparedData,
    scans: list[SourceScan],
    template: TemplateFile | None,
    directory: Path,
) -> DatasetSummary:
    """Return the summary for the status.

    Args:
        spec: the spec of the job.
        hyperparameters: those of its training.
        data: its prepared data.
        scans: the scans of all sources.
        template: the chat template of `model.chatTemplate`; None is the model's own.
        directory: the directory with the prepared files.
    """
    mix, copies = data.mix, data.copies
    warnings: Counter[str] = sum((scan.warnings.counts for scan in scans), Counter())
    longest = mix.collect("longest")
    answered = mix.copies * mix.collect("learned_answers") > 0
    formats = {scan.format for scan in mix.scans}
    return DatasetSummary(
        format=mix.scans[0].format if len(formats) == 1 else None,
        sources=_summarize_sources(data) if spec.dataset.mix else None,
        train_examples=int(copies.sum()),
        heldout_examples=data.heldout_examples,
        train_tokens=int(data.lengths.tokens.sum()),
        longest_example_tokens=max(max(scan.longest) for scan in scans),
        truncated_examples=int(copies[longest > spec.hyperparameters.max_length].sum()),
        learned_answers=int((copies * mix.collect("learned_answers")).sum()),
        unlearned_answers=int((copies * mix.collect("unlearned_answers")).sum()),
        thinking_off=bool(answered.any() and mix.collect("thinking_off")[answered].all()),
        duplicates=data.duplicates,
        warnings=dict(sorted(warnings.items())) or None,
        steps=estimate_steps(spec, hyperparameters, data.lengths.longest),
        chat_template=template.digest if template else None,
        digest=digest_directory(directory),
    )


def _summarize_sources(data: PreparedData) -> list[SourceSummary]:
    is_heldout = np.zeros(len(data.mix.copies), dtype=bool)
    is_heldout[data.heldout] = True
    parts = zip(data.mix.scans, data.mix.split(data.copies), data.mix.split(is_heldout), strict=True)
    return [
        SourceSummary(
            format=scan.format or "",
            examples=len(scan.row_numbers),
            train_examples=int(copies.sum()),
            heldout_examples=int(heldout.sum()),
        )
        for scan, copies, heldout in parts
    ]
