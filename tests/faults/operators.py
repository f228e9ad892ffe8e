"""The operator's processes: forked from a warm one, killed for real, started again as a kubelet would."""

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
_MOST_LINES = 5
"""Of a traceback."""
RESYNC_SELDOM = 600.0
RESYNC_OFTEN = 2.0
"""Where events are lost, the resync repairs the cache; elsewhere it must not hide anything."""


def warm_up() -> None:
    """Let the process that operators are forked from import everything once."""
    # The client reads the name when it is imported; each operator finds the file where it is started.
    os.environ["KUBECONFIG"] = "kubeconfig"
    _CONTEXT.set_forkserver_preload(["finetune_operator.__main__", "faults.operators"])


class Process:
    """One operator."""

    def __init__(self, directory: Path, server: str, token: str, *, pod: str, namespace: str, resync: float) -> None:
        """Write its files.

        Args:
            directory: for its files; made here.
            server: URL of the API server.
            token: what it is known by there.
            pod: name of the pod that it is the container of, and of its Lease: several that lead at once do no harm.
            namespace: where its Lease is.
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
        """Run it until it ends."""
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
        """End it at once, whatever it does."""
        self._process.kill()

    def errors(self) -> list[str]:
        """Return what it logged that nobody expects; one that was killed early has no log."""
        return list(map(_describe, unexpected_errors("\n".join(self.said()))))

    def said(self) -> list[str]:
        """Return the lines of its log; the last of one that was killed may have no end and is left out."""
        log = self.directory / "log"
        return log.read_text().split("\n")[:-1] if log.exists() else []


def _describe(error: dict[str, Any] | str) -> str:
    if isinstance(error, str):
        return error
    return "\n".join([error["message"], *error.get("exception", "").splitlines()[-_MOST_LINES:]])


def _operate(directory: Path, pod: str, namespace: str) -> None:
    """Be an operator: what its container runs, in the directory of its files."""
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
