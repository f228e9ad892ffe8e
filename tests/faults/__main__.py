"""`python -m faults`: every fault in every lifecycle on a real API server; prints the counts as one line of JSON.

`python -m faults LIFECYCLE KIND WHERE` repeats one run; the report of a divergence has these arguments.
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

_MAX_LINES = 60
"""Lines of a difference that are printed."""


def main() -> int:
    """Run all faults, or the given one; return 0 if no run has a problem."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("run", nargs="*", metavar="LIFECYCLE KIND WHERE", help="one run; without it all")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random choices")
    arguments = parser.parse_args()
    if len(arguments.run) not in (0, 3):
        parser.error("give a lifecycle, a kind and where, or nothing")
    with control_plane() as cluster, tempfile.TemporaryDirectory() as directory:
        install_crds(cluster)
        started = time.monotonic()

        async def run() -> list[Verdict]:
            async with Stage.set_up(cluster, Path(directory), arguments.seed) as stage:
                if arguments.run:
                    lifecycle, kind, where = arguments.run
                    return await run_all(stage, [(lifecycle, Fault.parse(kind, where))])
                references = await run_all(stage, [(lifecycle, None) for lifecycle in LIFECYCLES])
                points = {reference.lifecycle: reference.points for reference in references}
                return references + await run_all(stage, list(plan_all(points, arguments.seed)))

        verdicts = asyncio.run(run())
    print(json.dumps(summarize(verdicts, arguments.seed, time.monotonic() - started)))
    return 1 if any(verdict.problems for verdict in verdicts) else 0


async def run_all(stage: Stage, runs: list[tuple[str, Fault | None]]) -> list[Verdict]:
    """Run all and report each verdict on standard error."""

    async def run(lifecycle: str, fault: Fault | None) -> Verdict:
        verdict = await (stage.run(lifecycle, fault) if fault else stage.reference(lifecycle))
        report(verdict, stage.seed)
        return verdict

    return await asyncio.gather(*(run(lifecycle, fault) for lifecycle, fault in runs))


def report(verdict: Verdict, seed: int) -> None:
    """Print the verdict of a run; for a problem also the differences, the logs and how to repeat the run."""
    name = f"{verdict.lifecycle} {verdict.fault or 'without a fault'}"
    text = f"{name}: {verdict.seconds:.1f} s, struck {len(verdict.struck)} times"
    if verdict.problems:
        struck = " ".join(map(str, verdict.struck[:_MAX_LINES]))
        text += f"\n  repeat it with: make faults FAULTS='{name} --seed {seed}'\n  struck: {struck}\n"
        text += "\n".join(f"  {line}" for problem in verdict.problems for line in problem.splitlines()[:_MAX_LINES])
        text += "".join(f"\n  {line}" for line in verdict.log_lines)
    sys.stderr.write(text + "\n")


def summarize(verdicts: list[Verdict], seed: int, seconds: float) -> dict[str, Any]:
    """Return the counts over all runs."""
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
