"""`python -m faults`: every fault in every lifecycle against a real API server, as one line of JSON.

`python -m faults LIFECYCLE KIND WHERE` repeats one run, as a divergence says how.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.control_plane import control_plane, install_crds
from faults.faults import Fault, Kind
from faults.lifecycles import LIFECYCLES
from faults.plan import plan_all
from faults.runs import Stage, Verdict

_MOST_LINES = 60
"""Of a difference."""


def main() -> int:
    """Run what is asked for; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("run", nargs="*", metavar="LIFECYCLE KIND WHERE", help="one run; without it all")
    parser.add_argument("--seed", type=int, default=1, help="what is left to chance")
    arguments = parser.parse_args()
    if len(arguments.run) not in (0, 3):
        parser.error("give a lifecycle, a kind and where, or nothing")
    with control_plane() as cluster, tempfile.TemporaryDirectory() as directory:
        install_crds(cluster)
        began = time.monotonic()

        async def run() -> list[Verdict]:
            async with Stage.set_up(cluster, Path(directory), arguments.seed) as stage:
                if arguments.run:
                    lifecycle, kind, where = arguments.run
                    return await run_all(stage, [(lifecycle, Fault.parse(kind, where))])
                references = await run_all(stage, [(lifecycle, None) for lifecycle in LIFECYCLES])
                points = {reference.lifecycle: reference.points for reference in references}
                return references + await run_all(stage, list(plan_all(points, arguments.seed)))

        verdicts = asyncio.run(run())
    print(json.dumps(summarise(verdicts, arguments.seed, time.monotonic() - began)))
    return 1 if any(verdict.problems for verdict in verdicts) else 0


async def run_all(stage: Stage, runs: list[tuple[str, Fault | None]]) -> list[Verdict]:
    """Run them, and say on standard error how it goes."""

    async def run(lifecycle: str, fault: Fault | None) -> Verdict:
        verdict = await (stage.run(lifecycle, fault) if fault else stage.reference(lifecycle))
        tell(verdict, stage.seed)
        return verdict

    return await asyncio.gather(*(run(lifecycle, fault) for lifecycle, fault in runs))


def tell(verdict: Verdict, seed: int) -> None:
    """Say how a run went; where it went wrong, all that is needed to repeat it."""
    what = f"{verdict.lifecycle} {verdict.fault or 'without a fault'}"
    told = f"{what}: {verdict.seconds:.1f} s, struck {len(verdict.struck)} times"
    if verdict.problems:
        struck = " ".join(map(str, verdict.struck[:_MOST_LINES]))
        told += f"\n  repeat it with: make faults FAULTS='{what} --seed {seed}'\n  struck: {struck}\n"
        told += "\n".join(f"  {line}" for one in verdict.problems for line in one.splitlines()[:_MOST_LINES])
        told += "".join(f"\n  {line}" for line in verdict.said)
    sys.stderr.write(told + "\n")


def summarise(verdicts: list[Verdict], seed: int, seconds: float) -> dict[str, Any]:
    """Return the figures of all runs."""
    return {
        "runs": len(verdicts),
        "divergences": sum(bool(verdict.divergences) for verdict in verdicts),
        "repeated_trainings": sum(len(verdict.repeated_trainings) for verdict in verdicts),
        "orphans": sum(len(verdict.orphans) for verdict in verdicts),
        "leaked_writes": sum(len(verdict.leaked_writes) for verdict in verdicts),
        "not_struck": sum(
            not verdict.struck for verdict in verdicts if verdict.fault and verdict.fault.kind != Kind.TWO
        ),
        "seconds": round(seconds),
        "seed": seed,
    }


if __name__ == "__main__":
    sys.exit(main())
