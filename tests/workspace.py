"""A job's files below a directory, and runs of the trainer on them as in its image."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.local.ports import find_free_port
from finetune_api.contract.jobfile import JobDirectory, JobFile, read_job_file
from finetune_api.contract.reports import StageReport, parse_report
from forked import preload, run_forked

preload("trainer_imports")


@dataclass(frozen=True)
class Workspace:
    """One job's files, laid out below `root` as in a pod."""

    root: Path

    @property
    def job_path(self) -> Path:
        """The path of the job file."""
        return self.root / "job.json"

    @property
    def job(self) -> JobFile:
        """The parsed job file."""
        return read_job_file(self.job_path)

    @property
    def directory(self) -> JobDirectory:
        """The job's directory."""
        return JobDirectory.of(self.job, self.root)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the trainer as in its image; append its output to the log."""
        with (self.root / "log").open("a") as log:
            return subprocess.Popen(self._build_command(*arguments), env=os.environ, stdout=log, stderr=log, text=True)

    def command(self, *arguments: str) -> str:
        """Return the shell command that starts the trainer."""
        return shlex.join(self._build_command(*arguments))

    def _build_command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "finetune_trainer", *self._build_arguments(*arguments)]

    def _build_arguments(self, stage: str, *options: str) -> list[str]:
        port = [f"--metrics-port={find_free_port()}"] if stage == "train" else []
        paths = [f"--job={self.job_path}", f"--root={self.root}", f"--termination-log={self.root / 'report.json'}"]
        return [*paths, stage, *port, *options]

    def run_subprocess(self, *arguments: str) -> tuple[int, StageReport | None]:
        """Run the trainer as in its image; return its exit status and its report."""
        return self.start(*arguments).wait(300), self.report()

    def run(self, *arguments: str) -> tuple[int, StageReport | None]:
        """Do the same in a forked process, without importing the packages again.

        They ignore environment variables that changed since they were imported.
        """
        status = run_forked("finetune_trainer", self._build_arguments(*arguments), self.root / "log", 300)
        return status, self.report()

    def report(self) -> StageReport | None:
        """Return the termination message; None if there is none."""
        path = self.root / "report.json"
        return parse_report(path.read_text()) if path.exists() else None

    @property
    def log(self) -> str:
        """The output of the trainer."""
        return (self.root / "log").read_text()


def make_workspace(root: Path, base: Path, lines: list[Any], **spec: Any) -> Workspace:
    """Write a job file, its model and its data; `spec` overrides fields of the job's spec."""
    (root / "claims" / "data").mkdir(parents=True)
    (root / "claims" / "models").mkdir(parents=True)
    (root / "claims" / "models" / "tiny").symlink_to(base)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (root / "claims" / "data" / "train.jsonl").write_text(text)
    manifest = {
        "metadata": {"name": "job", "uid": "0123456789"},
        "spec": {
            "model": {"uri": "pvc://models/tiny"},
            "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
            "method": {"sft": {"packing": False}},
            "adapter": {"lora": {"rank": 8}},
            "hyperparameters": {"epochs": 4, "learningRate": 0.005, "batchSize": 2, "maxLength": 64},
            "compute": {"saveSteps": 10},
        }
        | spec,
    }
    (root / "job.json").write_text(json.dumps(manifest))
    return Workspace(root)


def make_price_chats(count: int) -> list[dict[str, Any]]:
    """Return `count` different conversations about prices."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"what does thing {number} cost?"},
                {"role": "assistant", "content": f"thing {number} costs {number} euros"},
            ]
        }
        for number in range(count)
    ]
