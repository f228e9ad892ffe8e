"""A random part of `make faults`, and known difficult faults by name."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from cluster.control_plane import control_plane, install_crds
from faults.faults import Fault, Kind, Share
from faults.lifecycles import LIFECYCLES
from faults.plan import plan_all
from faults.runs import Stage, Verdict

SEED = 1
RUNS = 4
"""Random faults for each lifecycle."""
SLOW = (Kind.TIMEOUT, Kind.DOWN)
TRAPS = {
    "server errors for longer than kopf retries end no watch": "serve down WRITE:jobs:2",
    "a conflict with a status write stops nothing": "serve 409 WRITE:finetunejobs/status:2",
    "a server error on a status write stops nothing": "serve 500 WRITE:finetunejobs/status:2",
    "a Job that is deleted while no watch is open is noticed": "again gone DELETED:jobs:1",
    "a FineTuneJob that is deleted while no watch is open is noticed": "again gone DELETED:finetunejobs:1",
    "an old event does not restore a deleted object": "again stale DELETED:finetunejobs:1",
    "a list whose continue token expires is restarted": "shared expired ADDED:jobs:4",
    "a watch that ends with another error than 410 is restarted": "serve error MODIFIED:jobs:2",
    "a watch that is answered with 410 is restarted": "serve gone-http WATCH:jobs:1",
    "a watch that ends in the middle of a line is restarted": "serve cut MODIFIED:jobs:2",
    "a pod without an event is read before its work is repeated": "gates dropped ADDED:pods:2",
    "the resync replaces a silent watch": "serve silent MODIFIED:jobs:1",
    "a server with new pods but no events keeps serving": "rolled silent ADDED:pods:4",
    "a Job whose creation has no response trains once": "serve lost WRITE:jobs:2",
    "a Job that a killed operator created trains once": "serve crash-after WRITE:jobs:2",
    "a Job that is created after its operator's death trains once": "serve crash-late WRITE:jobs:2",
    "a dead operator's status does not undo its successor's": "serve crash-late WRITE:finetunejobs/status:3",
    "a late status is not written to a new job of the same name": "again crash-late WRITE:finetunejobs/status:5",
    "an evaluation on a server survives a crash": "shared crash-after WRITE:jobs:3",
    "two operators train once": "retry two each",
}


@dataclass
class Runs:
    """The runs in progress."""

    sampled: dict[str, asyncio.Task[list[Verdict]]] = field(default_factory=dict)
    traps: dict[str, asyncio.Task[Verdict]] = field(default_factory=dict)


@pytest.fixture(scope="session")
async def runs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runs]:
    with control_plane() as cluster:
        install_crds(cluster)
        async with Stage.set_up(cluster, tmp_path_factory.mktemp("faults"), SEED) as stage:
            started = Runs()
            for name, words in TRAPS.items():
                lifecycle, kind, where = words.split()
                started.traps[name] = asyncio.create_task(stage.run(lifecycle, Fault.parse(kind, where)))
            for lifecycle in LIFECYCLES:
                started.sampled[lifecycle] = asyncio.create_task(run_some(stage, lifecycle))
            yield started
            tasks = [*started.traps.values(), *started.sampled.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def run_some(stage: Stage, lifecycle: str) -> list[Verdict]:
    """Run randomly chosen faults of a lifecycle."""
    reference = await stage.reference(lifecycle)
    faults = [fault for _, fault in plan_all({lifecycle: reference.points}, stage.seed) if not is_slow(fault)]
    chosen = random.Random(f"{stage.seed} {lifecycle}").sample(faults, RUNS)  # noqa: S311 - reproducible by its seed
    return [reference, *await asyncio.gather(*(stage.run(lifecycle, fault) for fault in chosen))]


def is_slow(fault: Fault) -> bool:
    """Return whether a run would spend most of its time waiting."""
    return fault.kind in SLOW or (fault.kind is Kind.UNPROCESSABLE and isinstance(fault.where, Share))


@pytest.mark.parametrize("lifecycle", LIFECYCLES)
async def test_a_run_with_a_random_fault_ends_like_the_fault_free_run(runs: Runs, lifecycle: str) -> None:
    verdicts = await runs.sampled[lifecycle]
    assert not [(str(verdict.fault), problem) for verdict in verdicts for problem in verdict.problems]
    assert len(verdicts) == RUNS + 1


@pytest.mark.parametrize("trap", TRAPS)
async def test_a_run_with_a_known_fault_ends_like_the_fault_free_run(runs: Runs, trap: str) -> None:
    verdict = await runs.traps[trap]
    assert verdict.struck or verdict.fault == Fault.parse("two", "each")
    assert not verdict.problems
