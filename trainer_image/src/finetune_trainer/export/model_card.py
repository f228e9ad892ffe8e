"""The model card: what was trained, on what, how, and how to load it. In the form of the hub's cards."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from finetune_api.artifact import Artifact
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.summaries import ChosenHyperparameters, TrainingSummary
from finetune_api.uris import parse_uri
from finetune_pod.model_card import with_scores

_UNKNOWN = "unknown"
_ROWS = 10


@dataclass(frozen=True)
class Trained:
    """What a card tells beside the job itself."""

    chosen: ChosenHyperparameters
    training: TrainingSummary
    artifact: Artifact
    losses: Sequence[tuple[int, float]]
    """Step and training loss, for each logged step."""
    base_license: str | None
    """Id of the base model's licence, from its own card."""


def read_license(directory: Path) -> str | None:
    """Return the licence's id that the card of the base model gives; None where it gives none."""
    _, _, rest = _read_text(directory / "README.md").partition("---\n")
    front, closed, _ = rest.partition("\n---")
    try:
        found = yaml.safe_load(front) if closed else None
    except yaml.YAMLError:
        return None
    license_id = found.get("license") if isinstance(found, dict) else None
    return license_id if isinstance(license_id, str) and re.fullmatch(r"[A-Za-z0-9.+-]{1,64}", license_id) else None


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def write_card(job: JobFile, directory: JobDirectory, trained: Trained) -> None:
    """Write the card, with what `prepare` found in the data."""
    prepared = json.loads(directory.report("prepare").read_text(encoding="utf-8"))
    directory.model_card.write_text(build_card(job, trained, prepared["statistics"]), encoding="utf-8")


def build_card(job: JobFile, trained: Trained, statistics: dict[str, Any]) -> str:
    """Return the card as Markdown, its scores still open. Pure."""
    spec = job.spec
    revision = f", revision `{job.base.revision}`" if job.base.revision else ""
    known = trained.base_license or "unknown: look at the base model"
    training = trained.training
    intro = (
        f"`{job.base.uri}`{revision}, tuned with `{spec.method.name}` (`{spec.adapter.name}`)."
        f" Licence of the base model: {known}.\n"
    )
    data = (
        f"`{spec.dataset.train.uri}`: {statistics['trainExamples']} examples to train on with"
        f" {statistics['trainTokens']} tokens, {statistics['heldoutExamples']} held out."
        f" Digest of the prepared data: `{statistics['digest']}`.\n"
    )
    result = (
        f"{training.steps} steps; the loss at the end is {training.loss:.4f}."
        f" Digest of the artifact: `{trained.artifact.digest}`.\n"
    )
    curve = [(step, f"{loss:.4f}") for step, loss in _thin(trained.losses)]
    hyperparameters = _table(("hyperparameter", "value"), _hyperparameters(job, trained.chosen).items())
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(job, trained), sort_keys=False)}---\n",
        *(f"# {job.name}\n", intro),
        *("## How to load it\n", _loading(job, trained.artifact)),
        *("## Data\n", data),
        *("## Training\n", hyperparameters, result, _table(("step", "training loss"), curve)),
        *("## Manifest\n", f"```json\n{job.to_json()}\n```\n"),
    ]
    return with_scores("\n".join(parts), None)


def _front_matter(job: JobFile, trained: Trained) -> dict[str, Any]:
    """Return what the hub reads; a base model that is not on the hub has no name there."""
    spec, uri = job.spec, parse_uri(job.base.uri)
    front: dict[str, Any] = {"license": trained.base_license or _UNKNOWN}
    if uri.scheme == "hf":
        front["base_model"] = uri.authority
    return front | {
        "library_name": "peft" if trained.artifact.kind == "Adapter" else "transformers",
        "pipeline_tag": "text-classification" if spec.method.reward else "text-generation",
        "tags": ["trl", spec.method.name, spec.adapter.name],
    }


def _loading(job: JobFile, artifact: Artifact) -> str:
    """Return the lines of Python that load the artifact from its directory."""
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
    return "\n".join(["With the directories in place of `pvc://`:\n", "```python", *lines, "```\n"])


def _hyperparameters(job: JobFile, chosen: ChosenHyperparameters) -> dict[str, Any]:
    """Return the job's values with those that were chosen, and the adapter's."""
    low_rank = job.spec.adapter.low_rank
    values = job.spec.hyperparameters.to_dict() | chosen.to_dict()
    return values | (low_rank.to_dict() if low_rank else {})


def _thin(losses: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most ten points over the whole curve, both ends among them."""
    if len(losses) <= _ROWS:
        return list(losses)
    return [losses[round(row * (len(losses) - 1) / (_ROWS - 1))] for row in range(_ROWS)]


def _table(header: tuple[str, str], rows: Any) -> str:
    lines = [header, ("---", "---"), *rows]
    return "".join(f"| {name} | {value} |\n" for name, value in lines)
