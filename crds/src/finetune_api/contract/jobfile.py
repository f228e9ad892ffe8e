"""The FineTuneJob as its pods read it, and the directory that its stages share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_api.contract.mounts import DEFAULT_CLAIM, path_of
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.meta import API_VERSION
from finetune_api.modelserver import Model
from finetune_api.warm_start import WarmStart


@dataclass(frozen=True)
class JobFile:
    """A FineTuneJob with the identity that its directory and its artifacts carry."""

    name: str
    uid: str
    spec: FineTuneJobSpec
    """As it was applied, but for a `finetunejob://` in `model.uri`: there stands the model that it stood for."""
    warm_start: WarmStart | None = None
    """What that was."""

    def to_json(self) -> str:
        """Return the file's text: the manifest as it was applied, defaults included; approving it changes nothing."""
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
    def base(self) -> Model:
        """The model that the result belongs to: where an earlier adapter is merged into it, the merged one."""
        if self.warm_start and self.warm_start.parent_adapter == "Merge":
            return Model(uri=f"{self.output_uri}/merged")
        return self.spec.model

    @property
    def output_uri(self) -> str:
        """The job's own directory as a URI: one for each job, named by name and uid."""
        root = (self.spec.output and self.spec.output.uri) or f"pvc://{DEFAULT_CLAIM}"
        return f"{root}/{self._directory_name}"

    @property
    def bucket_uri(self) -> str | None:
        """The job's own directory in `output.bucket`, if there is one."""
        bucket = self.spec.output and self.spec.output.bucket
        return f"{bucket.uri}/{self._directory_name}" if bucket else None

    @property
    def _directory_name(self) -> str:
        return f"{self.name}-{self.uid[:8]}"


def read_job_file(path: Path) -> JobFile:
    """Read the mounted FineTuneJob.

    Raises:
        ValueError: it is not a FineTuneJob; the message names the fields.
    """
    try:
        manifest = json.loads(path.read_text())
        return JobFile(
            name=manifest["metadata"]["name"],
            uid=manifest["metadata"]["uid"],
            spec=FineTuneJobSpec.model_validate(manifest["spec"]),
            warm_start=WarmStart.model_validate(earlier) if (earlier := manifest.get("warmStart")) else None,
        )
    except ValidationError as error:
        raise ValueError(f"{path}: {describe_errors(error)}") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no FineTuneJob: {error!r}") from None


def describe_errors(error: ValidationError) -> str:
    """Return every wrong field with its message, in one line."""
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

    @property
    def train_data(self) -> Path:
        """Prepared conversations to train on, one JSON object a line."""
        return self.path / "data" / "train.jsonl"

    @property
    def heldout_data(self) -> Path:
        """Prepared conversations for the evaluation."""
        return self.path / "data" / "heldout.jsonl"

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
