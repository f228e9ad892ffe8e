"""Runs our programs in processes forked from one that has imported their packages, since imports dominate short runs.

Programs behave as in their own process. Tests that stop or kill a program, and those of the images, start it in one.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")


def preload(imports: str) -> None:
    """Set the module that imports the packages; the fork server imports it at the first run.

    Set environment variables that the packages read at import time before that.
    """
    _CONTEXT.set_forkserver_preload([imports])


def run_forked(module: str, arguments: Sequence[str], log: Path, seconds: float) -> int:
    """Run `python -m module arguments`, append its output to the file `log`, and return its exit status.

    Raises:
        TimeoutExpired: it ran longer than `seconds` and was killed.
    """
    process = _CONTEXT.Process(target=_run, args=(module, [*arguments], dict(os.environ), Path.cwd(), log))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired([module, *arguments], seconds)
    return process.exitcode


def _run(module: str, arguments: list[str], environment: dict[str, str], directory: Path, log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    with log.open("ab") as out:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(out.fileno(), stream.fileno())
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
