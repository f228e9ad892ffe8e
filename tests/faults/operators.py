"""The operator's processes: forked from a preloaded one, killed with SIGKILL, restarted as a kubelet would."""

import asyncio
import ctypes
import json
import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import yaml
from operator_log import unexpected_errors

_CONTEXT = multiprocessing.get_context("forkserver")
_PR_SET_PDEATHSIG = 1
_IMAGES = {"trainer": "trainer:1", "serving": "serving:1"}
_MAX_LINES = 5
"""Lines of a traceback in an error message."""
RESYNC_SELDOM = 600.0
RESYNC_OFTEN = 2.0
"""A frequent resync only for runs that lose events; in all other runs it must not hide a missed event."""


def warm_up() -> None:
    """Start the process from which operators are forked, with all imports done."""
    # The client reads the name at import; each operator has its file in its working directory.
    os.environ["KUBECONFIG"] = "kubeconfig"
    _CONTEXT.set_forkserver_preload(["finetune_operator.__main__", "faults.operators"])


class Process:
    """A process of an operator."""

    def __init__(self, directory: Path, server: str, token: str, *, pod: str, namespace: str, resync: float) -> None:
        """Write its files.

        Args:
            directory: directory of its files; it is created.
            server: URL of the API server.
            token: its token for that URL.
            pod: name of its pod and of its Lease; with one Lease each, several operators lead at once.
            namespace: namespace of its Lease.
            resync: seconds between two resyncs.
        """
        directory.mkdir(parents=True)
        self.directory, self.exit_status = directory, 0
        settings = {"images": _IMAGES, "resyncSeconds": resync, "logLevel": "Info"}
        (directory / "settings.yaml").write_text(yaml.safe_dump(settings))
        (directory / "kubeconfig").write_text(json.dumps(_kubeconfig(server, token)))
        self._process: ForkServerProcess = _CONTEXT.Process(
            target=_operate, args=(directory, pod, namespace), daemon=True
        )

    async def run(self) -> None:
        """Start the process and wait until it ends."""
        self._process.start()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
            self.kill()
            self._process.join()
            self.exit_status = self._process.exitcode or 0
            self._process.close()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def errors(self) -> list[str]:
        """Return the unexpected errors in its log; a process that was killed early has no log."""
        return list(map(_describe, unexpected_errors("\n".join(self.log_lines()))))

    def log_lines(self) -> list[str]:
        """Return the complete lines of its log; after a kill the last line may be incomplete."""
        log = self.directory / "log"
        return log.read_text().split("\n")[:-1] if log.exists() else []


def _describe(error: dict[str, Any] | str) -> str:
    if isinstance(error, str):
        return error
    return "\n".join([error["message"], *error.get("exception", "").splitlines()[-_MAX_LINES:]])


def _operate(directory: Path, pod: str, namespace: str) -> None:
    """Run the operator in the directory of its files; the target of the process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(directory)
    os.environ["POD_NAME"] = pod
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    from finetune_operator.__main__ import main

    ports = "--health-port=0", "--metrics-port=0"
    sys.argv = ["finetune-operator", "--settings=settings.yaml", f"--namespace={namespace}", f"--lease={pod}", *ports]
    main()


def _kubeconfig(server: str, token: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
    }
