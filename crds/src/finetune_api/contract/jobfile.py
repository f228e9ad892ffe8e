"""The FineTuneJob file that its pods read, and the directory that its stages share."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_api.artifact import Artifact
from finetune_api.contract.mounts import DEFAULT_CLAIM, path_of
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.meta import API_VERSION
from finetune_api.modelserver import Model
from finetune_api.warm_start import WarmStart


@dataclass(frozen=True)
class JobFile:
    """A FineTuneJob with the name and uid that identify its directory and artifacts."""

    name: str
    uid: str
    spec: FineTuneJobSpec
    """The spec as applied, except that a `finetunejob://` in `model.uri` is replaced by the model that it refers to."""
    warm_start: WarmStart | None = None
    """The resolved `finetunejob://`, if there was one."""

    def to_json(self) -> str:
        """Return the text of the file: the manifest with defaults, without `approved` and other fields about timing."""
        manifest: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": "FineTuneJob",
            "metadata": {"name": self.name, "uid": self.uid},
            "spec": self.spec.dump_without_scheduling(),
        }
        if self.warm_start:
            manifest["warmStart"] = self.warm_start.to_dict()
        return json.dumps(manifest, indent=1, sort_keys=True)

    @property
    def kept(self) -> Artifact | None:
        """The result of the parent job, if it is the job's own result and nothing is trained."""
        return self.warm_start.artifact if self.warm_start and self.warm_start.is_kept else None

    @property
    def base(self) -> Model:
        """The base model of the result: the merged model if the parent's adapter is merged, otherwise `spec.model`."""
        if self.warm_start and self.warm_start.parent_adapter == "Merge":
            return Model(uri=f"{self.output_uri}/merged")
        return self.spec.model

    @property
    def output_uri(self) -> str:
        """URI of the job's own directory, whose name is made of the job's name and uid."""
        root = (self.spec.output and self.spec.output.uri) or f"pvc://{DEFAULT_CLAIM}"
        return f"{root}/{self._directory_name}"

    @property
    def bucket_uri(self) -> str | None:
        """URI of the job's own directory in `output.bucket`; None without a bucket."""
        bucket = self.spec.output and self.spec.output.bucket
        return f"{bucket.uri}/{self._directory_name}" if bucket else None

    @property
    def _directory_name(self) -> str:
        return f"{self.name}-{self.uid[:8]}"


def read_job_file(path: Path) -> JobFile:
    """Return the FineTuneJob from the mounted file.

    Raises:
        ValueError: the file is not a valid FineTuneJob; the message names the fields.
    """
    try:
        manifest = json.loads(path.read_text())
        return JobFile(
            name=manifest["metadata"]["name"],
            uid=manifest["metadata"]["uid"],
            spec=FineTuneJobSpec.model_validate(manifest["spec"]),
            warm_start=WarmStart.model_validate(start) if (start := manifest.get("warmStart")) else None,
        )
    except ValidationError as error:
        raise ValueError(f"{path}: {describe_errors(error)}") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a FineTuneJob: {error!r}") from None


def describe_errors(error: ValidationError) -> str:
    """Return all invalid fields with their messages, in one line."""
    return "; ".join(
        ".".join(str(part) for part in problem["loc"]) + ": " + problem["msg"].removeprefix("Value error, ")
        for problem in error.errors(include_url=False, include_input=False)
    )


@dataclass(frozen=True)
class JobDirectory:
    """The files that the stages of one job hand to each other, on the output claim."""

    path: Path
    """The directory itself."""
    root: Path
    """The directory below which claims and ConfigMaps are mounted; `/` in a pod."""

    @classmethod
    def of(cls, job: JobFile, root: Path = Path("/")) -> "JobDirectory":
        """Return the job's directory on its claim, which is mounted below `root`."""
        return cls(path_of(job.output_uri, root), root)

    @classmethod
    def of_artifact(cls, artifact: Artifact, root: Path = Path("/")) -> "JobDirectory":
        """Return the directory of the job that trained an artifact, which is two levels below it."""
        return cls(path_of(artifact.uri, root).parents[1], root)

    @property
    def train_data(self) -> Path:
        """Prepared conversations to train on, one JSON object a line."""
        return self.path / "data" / "train.jsonl"

    @property
    def heldout_data(self) -> Path:
        """Prepared conversations for the evaluation."""
        return self.path / "data" / "heldout.jsonl"

    @property
    def template_date(self) -> Path:
        """The date that a chat template which prints today's date gets in all stages, as YYYY-MM-DD."""
        return self.path / "data" / "template-date"

    @property
    def chat_template(self) -> Path:
        """The content of `model.chatTemplate` that all stages use, as it was in `prepare`."""
        return self.path / "data" / "chat-template.jinja"

    @property
    def hyperparameters(self) -> Path:
        """The hyperparameters that `prepare` chose for the training, as JSON."""
        return self.path / "hyperparameters.json"

    def read_template_date(self) -> date | None:
        """Return that date; None if the template prints none."""
        return date.fromisoformat(self.template_date.read_text()) if self.template_date.exists() else None

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the training, over all attempts."""
        return self.path / "checkpoints"

    def adapter(self, attempt: int) -> Path:
        """The adapter that an attempt at the training wrote."""
        return self.path / "adapter" / str(attempt)

    def model(self, attempt: int) -> Path:
        """The whole model that an attempt at the training wrote, where that is the result instead of an adapter."""
        return self.path / "model" / str(attempt)

    @property
    def merged(self) -> Path:
        """The base model with the adapter of an earlier job in its weights, where the job begins with that."""
        return self.path / "merged"

    @property
    def history(self) -> Path:
        """The figures of each training step, as CSV."""
        return self.path / "report" / "steps.csv"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files, over all attempts."""
        return self.path / "tensorboard"

    @property
    def model_card(self) -> Path:
        """The model card; beside the artifact, whose digest covers its own directory alone."""
        return self.path / "report" / "MODEL_CARD.md"

    def report(self, name: str) -> Path:
        """A full report of a stage: `prepare.json`, `train.json`, `evaluate.json`."""
        return self.path / "report" / f"{name}.json"
