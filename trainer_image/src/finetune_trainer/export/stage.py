"""Merges the adapter and copies the result to its destinations. No row of the data leaves the claim."""

from pathlib import Path

from finetune_api.artifact import Artifact, describe_artifact
from finetune_api.conditions import Reason
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.contract.mounts import path_of
from finetune_api.contract.reports import StageReport
from finetune_api.output import Output
from finetune_api.summaries import ExportSummary
from finetune_api.uris import parse_uri

from finetune_trainer.export.artifacts import find_artifact, merge_adapter
from finetune_trainer.export.destinations import copy_to_bucket, push_to_hub
from finetune_trainer.fetch.sources import find_model
from finetune_trainer.prepared import read_chat_template


def export(job: JobFile, directory: JobDirectory, artifact: Artifact) -> StageReport:
    """Merge the adapter and copy the result, as `output` of the job says; return the report.

    Args:
        job: the FineTuneJob.
        directory: the directory of the FineTuneJob.
        artifact: the result that passed the evaluation.

    Raises:
        StageError: the artifact is missing or was changed, or a destination refuses it.
    """
    output = job.spec.output or Output()
    result = find_artifact(artifact, job.name, directory.root)
    merged = _merge(job, directory, artifact, result) if output.merged else None
    history = JobDirectory.of_artifact(artifact, directory.root).history
    files = _collect_files(history, path_of(merged.uri, directory.root) if merged else None, result)
    if (template := read_chat_template(job, directory)) and artifact.kind == "Adapter":
        files["chat_template.jinja"] = template.text.encode()
    card, commit = directory.model_card, None
    if job.bucket_uri:
        copy_to_bucket(job.bucket_uri, files | _build_card(card, artifact, merged, job.bucket_uri))
    if output.hub:
        name = parse_uri(output.hub.uri).authority
        commit = push_to_hub(job, output.hub, files | _build_card(card, artifact, merged, name))
    summary = ExportSummary(
        merged=merged, bucket=job.bucket_uri, hub=output.hub.uri if output.hub else None, commit=commit
    )
    return StageReport(outcome="Succeeded", reason=Reason.SUCCEEDED, message=summary.describe(), export=summary)


def _merge(job: JobFile, directory: JobDirectory, artifact: Artifact, adapter: Path) -> Artifact:
    """Write the merged model, replacing that of an interrupted attempt, and return it as an artifact."""
    attempt = artifact.uri.rpartition("/")[2]
    target = directory.model(int(attempt))
    target.parent.mkdir(exist_ok=True)
    model_directory = find_model(job.base, directory.root, weights=True)
    merge_adapter(model_directory, adapter, target, read_chat_template(job, directory))
    return describe_artifact(target, f"{job.output_uri}/model/{attempt}", "Model")


def _collect_files(history: Path, merged: Path | None, result: Path) -> dict[str, Path | bytes]:
    """Return the files to copy, by their target name: the result, or the merged model and the adapter."""
    files: dict[str, Path | bytes] = {path.name: path for path in sorted((merged or result).iterdir())}
    if merged:
        files |= {f"adapter/{path.name}": path for path in sorted(result.iterdir())}
    return files | {"steps.csv": history}


def _build_card(card: Path, artifact: Artifact, merged: Artifact | None, destination: str) -> dict[str, Path | bytes]:
    """Return the model card, whose example code loads the artifact from the destination instead of the claim."""
    location = f'"{destination}", subfolder="adapter"' if merged else f'"{destination}"'
    return {"README.md": card.read_text(encoding="utf-8").replace(f'"{artifact.uri}"', location).encode()}
