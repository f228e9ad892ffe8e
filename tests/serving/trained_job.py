"""A job after its training, with the files that its evaluation reads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.artifact import Artifact, ArtifactKind, describe_artifact
from finetune_api.contract.jobfile import JobDirectory
from finetune_api.contract.reports import parse_report
from forked import preload, run_forked
from serving.vllm_server import MODEL_URI

preload("serving.evaluation_imports")

CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"what does thing {number} cost?"},
            {"role": "assistant", "content": f"thing {number} costs {number} euros"},
        ]
    }
    for number in range(8)
]


@dataclass(frozen=True)
class TrainedJob:
    """A job after its training."""

    root: Path
    directory: JobDirectory

    @property
    def report(self) -> Any:
        """The full report."""
        return json.loads(self.directory.report("evaluate").read_text())

    def prepare(self, examples: list[dict[str, Any]], method: str = "sft", **evaluation: Any) -> None:
        """Write the held-out examples, and a job with these settings of its evaluation."""
        self.directory.heldout_data.write_text("".join(json.dumps(example) + "\n" for example in examples))
        manifest = {
            "metadata": {"name": "job", "uid": "0123456789"},
            "spec": {
                "model": {"uri": MODEL_URI},
                "dataset": {"train": {"uri": "pvc://data/x"}},
                "method": {method: {}},
                "adapter": {"lora": {"rank": 8}},
                "evaluation": {"maxNewTokens": 4, "minExamples": 2} | evaluation,
            },
        }
        (self.root / "job.json").write_text(json.dumps(manifest))

    def describe(self, directory: Path, kind: ArtifactKind = "Adapter") -> Artifact:
        """Return the artifact in a directory below the claims."""
        return describe_artifact(directory, f"pvc://{directory.relative_to(self.root / 'claims')}", kind)

    def evaluate(self, artifact: Artifact, *options: str) -> tuple[int, Any]:
        """Run the evaluation; return its exit status and its report."""
        (self.root / "report.json").unlink(missing_ok=True)
        arguments = [
            f"--root={self.root}",
            "evaluate",
            f"--job={self.root / 'job.json'}",
            f"--artifact={artifact.model_dump_json(by_alias=True)}",
            f"--termination-log={self.root / 'report.json'}",
            *options,
        ]
        status = run_forked("finetune_serving", arguments, self.root / "evaluate.log", 280)
        assert (self.root / "report.json").exists(), (self.root / "evaluate.log").read_text()[-4000:]
        return status, parse_report((self.root / "report.json").read_text())
