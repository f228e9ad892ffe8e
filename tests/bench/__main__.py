"""`python -m bench [--gpu]`: what training and planning cost. Ratios within one run; machines are noisy.

Nothing here is a test: no figure is asserted.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from finetune_api.reports import StageReport
from finetune_operator.observe import view_job
from finetune_operator.plan_job import Seen, plan_job
from finetune_operator.settings import Settings
from golden.test_golden import NOW
from model.tiny import make_tiny_model
from workplace import Workplace, make_workplace, price_chats

_CONVERSATIONS = 512
_RUNS = 3
_PLANS = 2_000
_SETTINGS = Settings.model_validate({"images": {"trainer": "trainer:1", "serving": "serving:1"}})


def main() -> None:
    """Run the benchmarks and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="train on one GPU, in bfloat16, with a larger model")
    gpu = parser.parse_args().gpu
    print(f"planning a new job: {measure_planning():.0f} µs (median of {_PLANS})")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        base = make_tiny_model(root / "base", layers=24 if gpu else 2)
        # Turn by turn, so that a machine that slows down does so for both.
        rates: dict[bool, list[float]] = {False: [], True: []}
        for run in range(_RUNS):
            for packing, measured in rates.items():
                rate = measure_training(root / f"{run}-{packing}", base, packing=packing, gpu=gpu)
                measured.append(rate)
                print(f"training {'with' if packing else 'without'} packing: {rate:,.0f} tokens/s", flush=True)
    ratios = [packed / plain for plain, packed in zip(*rates.values(), strict=True)]
    middle = statistics.median(ratios)
    print(f"with / without packing: {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {_RUNS} runs)")


def measure_training(directory: Path, base: Path, *, packing: bool, gpu: bool) -> float:
    """Return the tokens that one training takes in a second, from its first step to its last."""
    compute: dict[str, Any] = {"checkpointEvery": 10_000}
    if gpu:
        compute["resources"] = {"cpu": "4", "memory": "16Gi", "gpus": 1}
    workplace = make_workplace(
        directory,
        base,
        [*price_chats(_CONVERSATIONS)],
        method={"sft": {"packing": packing}},
        hyperparameters={"epochs": 1, "batchSize": 8, "maxLength": 256},
        compute=compute,
    )
    prepared, trained = (_run(workplace, *stage) for stage in (["prepare"], ["train", "--attempt=1"]))
    if prepared.dataset is None or trained.training is None:
        raise SystemExit("the reports hold no figures")
    return prepared.dataset.train_tokens / trained.training.seconds


def _run(workplace: Workplace, *arguments: str) -> StageReport:
    status, report = workplace.run(*arguments)
    if status != 0 or report is None:
        raise SystemExit(f"{arguments[0]} ended with {status}:\n{workplace.log[-3000:]}")
    return report


def measure_planning() -> float:
    """Return the microseconds that the decision about a new FineTuneJob takes."""
    path = Path(__file__).parents[1] / "golden" / "job-new" / "observed.yaml"
    manifest = yaml.safe_load(path.read_text())["job"]
    seconds = []
    for _ in range(_PLANS):
        began = time.perf_counter()
        plan_job(view_job(manifest), Seen(attempts=[]), _SETTINGS, NOW)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e6


if __name__ == "__main__":
    main()
