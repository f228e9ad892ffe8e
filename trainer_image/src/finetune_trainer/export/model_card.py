"""The model card of the result, in the format of the hub: data, hyperparameters, losses, and code to load it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from finetune_api.artifact import Artifact
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.data import Dataset
from finetune_api.summaries import ChosenHyperparameters, TrainingSummary
from finetune_api.uris import parse_uri
from finetune_pod.model_card import with_scores

_UNKNOWN = "unknown"
_MAX_LOSS_ROWS = 10


@dataclass(frozen=True)
class TrainingResult:
    """The contents of a card that are not part of the job."""

    chosen: ChosenHyperparameters
    training: TrainingSummary
    artifact: Artifact
    losses: Sequence[tuple[int, float]]
    """Step and training loss of each logged step."""
    base_license: str | None
    """ID of the base model's license, from its own card; None if the card gives none."""


def read_license(directory: Path) -> str | None:
    """Return the ID of the license in the card of a model; None if the card gives none.

    Args:
        directory: the directory of the model.
    """
    _, _, rest = _read_text(directory / "README.md").partition("---\n")
    front, closed, _ = rest.partition("\n---")
    try:
        metadata = yaml.safe_load(front) if closed else None
    except yaml.YAMLError:
        return None
    license_id = metadata.get("license") if isinstance(metadata, dict) else None
    return license_id if isinstance(license_id, str) and re.fullmatch(r"[A-Za-z0-9.+-]{1,64}", license_id) else None


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def write_card(job: JobFile, directory: JobDirectory, result: TrainingResult) -> None:
    """Write the card, with the statistics of the data from the report of `prepare`."""
    prepared = json.loads(directory.report("prepare").read_text(encoding="utf-8"))
    directory.model_card.write_text(build_card(job, result, prepared["statistics"]), encoding="utf-8")


def build_card(job: JobFile, result: TrainingResult, statistics: dict[str, Any]) -> str:
    """Return the card as Markdown, without scores, which are added after the evaluation. No I/O."""
    spec = job.spec
    digest = statistics.get("chatTemplate")
    license_id = result.base_license or "unknown, see the base model"
    training = result.training
    intro = (
        f"`{job.base.uri}`{_describe_revision(job.base.revision)}, fine-tuned with `{spec.method.name}`"
        f" (`{spec.adapter.name}`). License of the base model: {license_id}."
        + (f" Chat template: `{spec.model.chat_template}`, `{digest}`." if digest else "")
        + "\n"
    )
    outcome = (
        f"{training.steps} steps, final training loss {training.loss:.4f}."
        f" Digest of the artifact: `{result.artifact.digest}`.\n"
    )
    curve = [(step, f"{loss:.4f}") for step, loss in _sample_losses(result.losses)]
    hyperparameters = _format_table(("hyperparameter", "value"), _list_hyperparameters(job, result.chosen).items())
    parts = [
        f"---\n{yaml.safe_dump(_build_metadata(job, result), sort_keys=False)}---\n",
        *(f"# {job.name}\n", intro),
        *("## Usage\n", _format_loading_code(job, result.artifact)),
        *("## Data\n", _describe_data(spec.dataset, statistics)),
        *("## Training\n", hyperparameters, outcome, _format_table(("step", "training loss"), curve)),
        *("## Manifest\n", f"```json\n{job.to_json()}\n```\n"),
    ]
    return with_scores("\n".join(parts), None)


def _describe_data(dataset: Dataset, statistics: dict[str, Any]) -> str:
    """Return the sources with their weights, and the sizes of the parts that the examples were split into."""
    names = [f"`{source.uri}`" + _describe_revision(source.revision) for source in dataset.sources.values()]
    sizes = (
        f"{statistics['trainExamples']} training examples with {statistics['trainTokens']} tokens,"
        f" {statistics['heldoutExamples']} held-out examples. Digest of the prepared data: `{statistics['digest']}`.\n"
    )
    if not dataset.mix:
        return f"{names[0]}: {sizes}"
    rows = [
        (name, f"{source.weight:g}", summary["examples"], summary["trainExamples"], summary["heldoutExamples"])
        for name, source, summary in zip(names, dataset.mix, statistics["sources"], strict=True)
    ]
    header = ("source", "weight", "examples", "training examples", "held-out examples")
    return f"{_format_table(header, rows)}\nTogether: {sizes}"


def _describe_revision(revision: str | None) -> str:
    return f", revision `{revision}`" if revision else ""


def _build_metadata(job: JobFile, result: TrainingResult) -> dict[str, Any]:
    """Return the metadata that the hub reads; `base_model` is set only if the base model is on the hub."""
    spec, uri = job.spec, parse_uri(job.base.uri)
    front: dict[str, Any] = {"license": result.base_license or _UNKNOWN}
    if uri.scheme == "hf":
        front["base_model"] = uri.authority
    return front | {
        "library_name": "peft" if result.artifact.kind == "Adapter" else "transformers",
        "pipeline_tag": "text-classification" if spec.method.reward else "text-generation",
        "tags": ["trl", spec.method.name, spec.adapter.name],
    }


def _format_loading_code(job: JobFile, artifact: Artifact) -> str:
    """Return Python code that loads the artifact from its directory."""
    kind = "AutoModelForSequenceClassification" if job.spec.method.reward else "AutoModelForCausalLM"
    uri, options = parse_uri(job.base.uri), ", num_labels=1" if job.spec.method.reward else ""
    path = artifact.uri
    if artifact.kind == "Model":
        lines = [f"from transformers import {kind}", "", f'model = {kind}.from_pretrained("{path}")']
    else:
        base = uri.authority if uri.scheme == "hf" else str(uri)
        if job.base.revision:
            options += f', revision="{job.base.revision}"'
        lines = ["from peft import PeftModel", f"from transformers import {kind}", ""]
        lines += [
            f'base = {kind}.from_pretrained("{base}"{options})',
            f'model = PeftModel.from_pretrained(base, "{path}")',
        ]
    return "\n".join(["Replace `pvc://` URIs with the paths of their directories:\n", "```python", *lines, "```\n"])


def _list_hyperparameters(job: JobFile, chosen: ChosenHyperparameters) -> dict[str, Any]:
    """Return the hyperparameters of the job and of the adapter, with the chosen ones instead of the omitted ones."""
    low_rank = job.spec.adapter.low_rank
    values = job.spec.hyperparameters.to_dict() | chosen.to_dict()
    return values | (low_rank.to_dict() if low_rank else {})


def _sample_losses(losses: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most ten losses, evenly spaced, with the first and the last."""
    if len(losses) <= _MAX_LOSS_ROWS:
        return list(losses)
    return [losses[round(row * (len(losses) - 1) / (_MAX_LOSS_ROWS - 1))] for row in range(_MAX_LOSS_ROWS)]


def _format_table(header: tuple[str, ...], rows: Any) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
