"""`python -m bench planning|operator|templates|training|serving|gpu`: benchmarks; none of them is a test.

Each prints one line of JSON. Both sides of a ratio are measured alternately in one run, since machines are noisy.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.gpu import measure_on_gpu
from bench.operator_scale import measure_operator
from bench.preparation import measure_preparation
from bench.rollouts import measure_rollouts
from bench.serving import measure_serving
from bench.templates import measure_templates
from bench.training import measure_training
from finetune_operator.job.plan import plan_job
from finetune_operator.job.snapshot import JobSnapshot
from finetune_operator.settings import Settings
from finetune_operator.state.views import view_job
from golden.cases import GOLDEN
from golden.test_golden import NOW

_PLANS = 2_000
_SETTINGS = Settings.model_validate({"images": {"trainer": "trainer:1", "serving": "serving:1"}})


def main() -> None:
    """Run one benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("benchmark", choices=["planning", "operator", "templates", "training", "serving", "gpu"])
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of rows to prepare")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[5_000, 10_000, 20_000], help="numbers of FineTuneJobs, ascending"
    )
    parser.add_argument("--idle", type=float, default=600, help="seconds for which an idle operator is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        figures: dict[str, Any]
        match arguments.benchmark:
            case "planning":
                figures = {"plan_us": round(measure_planning())}
            case "operator":
                figures = measure_operator(arguments.sizes, arguments.idle)
            case "templates":
                figures = measure_templates(root)
            case "training":
                # First, because the peak memory is that of all child processes so far.
                figures = measure_preparation(root / "preparing", arguments.rows)
                figures |= measure_training(root / "training")
            case "serving":
                figures = measure_serving(root) | measure_rollouts()
            case _:
                figures = measure_on_gpu(root)
    print(json.dumps(figures))


def measure_planning() -> float:
    """Return the median microseconds of planning a new FineTuneJob."""
    manifest = GOLDEN.read_observed("job-new")["job"]
    seconds = []
    for _ in range(_PLANS):
        started = time.perf_counter()
        plan_job(view_job(manifest), JobSnapshot(attempts=[]), _SETTINGS, NOW)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e6


if __name__ == "__main__":
    main()
