"""Runs the containers of planned Jobs and Deployments as processes of this machine, and shows them as pods."""

import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.contract.mounts import ROUTES_FILE, below
from finetune_api.contract.routes import LOADED_PATH, LoadedReport, parse_loaded
from finetune_api.jobstatus import TrainingProgress
from finetune_api.meta import JOB_ANNOTATION
from finetune_operator.controller.pod_client import parse_progress

from finetune.local.ports import find_free_port
from finetune.manifests import Manifest

PROGRAMS = {"trainer": "finetune_trainer", "serving": "finetune_serving"}
"""The modules that the images run, by the name of the image in the settings of a local run."""
_STOP_SECONDS = 120
"""As in a pod: time to save a checkpoint."""


@dataclass
class Process:
    """The process of one container."""

    name: str
    log: Path
    termination_log: Path
    port: int
    """Of its metrics, or of the server."""
    process: "subprocess.Popen[bytes]"
    annotations: dict[str, str] = field(default_factory=dict)

    def as_pod(self, *, is_ready: bool = False) -> Manifest:
        """Return the pod that the operator would see."""
        code = self.process.poll()
        if code is None:
            condition = {"type": "Ready", "status": str(is_ready)}
            status: Manifest = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [condition]}
        else:
            state = {"terminated": self._read_outcome(code)}
            status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"state": state}]}
        return {"metadata": {"name": self.name, "annotations": self.annotations}, "status": status}

    def _read_outcome(self, code: int) -> Manifest:
        message = self.termination_log.read_text(errors="replace") if self.termination_log.exists() else ""
        killed = {"reason": "OOMKilled"} if code == -signal.SIGKILL else {}
        # A shell's way to show a signal, and that of Kubernetes.
        return {"exitCode": 128 - code if code < 0 else code, "message": message} | killed

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self.process.poll() is not None

    def has_succeeded(self) -> bool:
        """Return whether the process has ended without an error."""
        return self.process.poll() == 0

    def stop(self) -> None:
        """Stop the process as the kubelet stops a pod; a training saves a checkpoint."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def read_progress(self) -> TrainingProgress | None:
        """Return the progress of a training; None if it reports none yet."""
        text = self._get("/metrics")
        return parse_progress(text) if text else None

    def read_loaded(self) -> LoadedReport | None:
        """Return what a server has loaded; None if it does not respond yet."""
        text = self._get(LOADED_PATH)
        return parse_loaded(text) if text else None

    def is_ready(self) -> bool:
        """Return whether a server answers requests."""
        return self._get("/readyz") is not None

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as response:
                return str(response.read().decode(errors="replace"))
        except OSError:
            return None


def start_process(name: str, pod: Manifest, annotations: dict[str, str], root: Path) -> Process:
    """Start the container of a pod.

    Args:
        name: of the pod.
        pod: its spec.
        annotations: its annotations; one has the job file.
        root: the directory in the place of the pod's `/`.
    """
    directory = root / "state" / "pods" / name
    directory.mkdir(parents=True, exist_ok=True)
    (container,) = pod["containers"]
    port = find_free_port()
    termination_log, log = directory / "termination-log", directory / "log"
    termination_log.unlink(missing_ok=True)
    options = [f"--root={root}"]
    if JOB_ANNOTATION in annotations:
        job = directory / "job.json"
        job.write_text(annotations[JOB_ANNOTATION])
        options += [f"--job={job}", f"--termination-log={termination_log}"]
    # A server listens on this machine alone, so that it needs no API keys.
    arguments = [argument for argument in container["args"] if not argument.startswith(("--port=", "--keys="))]
    match arguments[0]:
        case "train":
            arguments.append(f"--metrics-port={port}")
        case "evaluate":
            # The evaluation's parser takes the paths after the name of the command.
            arguments, options = [*arguments, *options[1:]], options[:1]
        case "serve":
            arguments += [f"--port={port}", "--host=127.0.0.1", f"--termination-log={termination_log}"]
            arguments += [f"--routes={below(root, ROUTES_FILE)}"]
    command = [sys.executable, "-m", PROGRAMS[container["image"]], *options, *arguments]
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=_build_env(container), start_new_session=True)
    return Process(name, log, termination_log, port, process, annotations)


def _build_env(container: Manifest) -> dict[str, str]:
    """Return this process's environment: what a Secret would set is expected in it under the same name."""
    values = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    own = {name: value for name, value in values.items() if name not in ("HOME", "HF_HOME", "TMPDIR")}
    return {**os.environ, **own}


def format_time(time: datetime) -> str:
    """Return a time in UTC as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def end_job(job: Manifest, *, succeeded: bool) -> Manifest:
    """Return a Job that has ended now."""
    now = format_time(datetime.now(UTC))
    condition = {"type": "Complete" if succeeded else "Failed", "status": "True", "lastTransitionTime": now}
    completion = {"completionTime": now} if succeeded else {}
    return job | {"status": job["status"] | {"conditions": [condition]} | completion}
