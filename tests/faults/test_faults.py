"""A part of what `make faults` runs, by the seed; and by name the traps that operators fall into."""

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
"""For each lifecycle."""
SLOW = (Kind.TIMEOUT, Kind.DOWN)
TRAPS = {
    "server errors that outlast kopf's patience end nothing": "serve down WRITE:jobs:2",
    "a conflict with a status write stops nothing": "serve 409 WRITE:finetunejobs/status:2",
    "a server error on a status write stops nothing": "serve 500 WRITE:finetunejobs/status:2",
    "a Job that is deleted while nobody watches is noticed": "again gone DELETED:jobs:1",
    "a FineTuneJob that is deleted while nobody watches is noticed": "again gone DELETED:finetunejobs:1",
    "an old event brings nothing deleted back": "again stale DELETED:finetunejobs:1",
    "a list whose continue token expires begins anew": "shared expired ADDED:jobs:4",
    "a watch that ends with another error than 410 is begun anew": "serve error MODIFIED:jobs:2",
    "a watch that is answered with 410 is begun anew": "serve gone-http WATCH:jobs:1",
    "a watch that ends in the middle of a line is begun anew": "serve cut MODIFIED:jobs:2",
    "a pod of which nobody told is asked for before its work is done again": "gates dropped ADDED:pods:2",
    "a watch that says nothing any more is made up for": "serve silent MODIFIED:jobs:1",
    "a server whose new pods nobody told of serves on": "rolled silent ADDED:pods:4",
    "a Job whose creation nobody heard of trains once": "serve lost WRITE:jobs:2",
    "a Job that is created by one who died trains once": "serve crash-after WRITE:jobs:2",
    "a Job that is created after its maker's death trains once": "serve crash-late WRITE:jobs:2",
    "a dead operator's status does not undo its successor's": "serve crash-late WRITE:finetunejobs/status:3",
    "an ancestor's status does not become its namesake's": "again crash-late WRITE:finetunejobs/status:5",
    "a server's evaluation is not forgotten by a crash": "shared crash-after WRITE:jobs:3",
    "two operators train once": "retry two each",
}


@dataclass
class Runs:
    """What goes on side by side."""

    sampled: dict[str, asyncio.Task[list[Verdict]]] = field(default_factory=dict)
    traps: dict[str, asyncio.Task[Verdict]] = field(default_factory=dict)


@pytest.fixture(scope="session")
async def runs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runs]:
    with control_plane() as cluster:
        install_crds(cluster)
        async with Stage.set_up(cluster, tmp_path_factory.mktemp("faults"), SEED) as stage:
            begun = Runs()
            for name, words in TRAPS.items():
                lifecycle, kind, where = words.split()
                begun.traps[name] = asyncio.create_task(stage.run(lifecycle, Fault.parse(kind, where)))
            for lifecycle in LIFECYCLES:
                begun.sampled[lifecycle] = asyncio.create_task(run_some(stage, lifecycle))
            yield begun
            left = [*begun.traps.values(), *begun.sampled.values()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


async def run_some(stage: Stage, lifecycle: str) -> list[Verdict]:
    """Run faults of a lifecycle that chance chooses."""
    reference = await stage.reference(lifecycle)
    faults = [fault for _, fault in plan_all({lifecycle: reference.points}, stage.seed) if not is_slow(fault)]
    chosen = random.Random(f"{stage.seed} {lifecycle}").sample(faults, RUNS)  # noqa: S311 - must come again
    return [reference, *await asyncio.gather(*(stage.run(lifecycle, fault) for fault in chosen))]


def is_slow(fault: Fault) -> bool:
    """Tell whether most of a run would be waiting."""
    return fault.kind in SLOW or (fault.kind is Kind.UNPROCESSABLE and isinstance(fault.where, Share))


@pytest.mark.parametrize("lifecycle", LIFECYCLES)
async def test_a_run_with_faults_ends_as_one_without(runs: Runs, lifecycle: str) -> None:
    verdicts = await runs.sampled[lifecycle]
    assert not [(str(verdict.fault), problem) for verdict in verdicts for problem in verdict.problems]
    assert len(verdicts) == RUNS + 1


@pytest.mark.parametrize("trap", TRAPS)
async def test_a_run_through_a_trap_ends_as_one_without_faults(runs: Runs, trap: str) -> None:
    verdict = await runs.traps[trap]
    assert verdict.struck or verdict.fault == Fault.parse("two", "each")
    assert not verdict.problems
