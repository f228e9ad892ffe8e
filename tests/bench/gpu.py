"""Training throughput on one GPU in bfloat16: LoRA with and without packing, and QLoRA, measured alternately."""

import statistics
from pathlib import Path
from typing import Any

from finetune_api.contract.reports import StageReport
from model.tiny import make_tiny_model
from workspace import Workspace, make_price_chats, make_workspace

_CONVERSATIONS = 512
_RUNS = 3
_LAYERS = 24
_CASES: dict[str, tuple[bool, str]] = {
    "plain": (False, "lora"),
    "packed": (True, "lora"),
    "packed_qlora": (True, "qlora"),
}


def measure_on_gpu(root: Path) -> dict[str, Any]:
    """Return the tokens a second of each case, and the ratio to training without packing."""
    base = make_tiny_model(root / "base", layers=_LAYERS)
    rates: dict[str, list[float]] = {name: [] for name in _CASES}
    for turn in range(_RUNS):
        for name, (packing, adapter) in _CASES.items():
            rates[name].append(_measure(root / f"{name}-{turn}", base, packing=packing, adapter=adapter))
    figures: dict[str, Any] = {
        f"tokens_per_s_{name}": round(statistics.median(values)) for name, values in rates.items()
    }
    for name in ("packed", "packed_qlora"):
        ratios = [rate / plain for rate, plain in zip(rates[name], rates["plain"], strict=True)]
        figures[f"ratio_{name}"] = round(statistics.median(ratios), 2)
    return figures | {"runs": _RUNS}


def _measure(directory: Path, base: Path, *, packing: bool, adapter: str) -> float:
    """Return the tokens a second of one training, from its first step to its last."""
    workspace = make_workspace(
        directory,
        base,
        [*make_price_chats(_CONVERSATIONS)],
        method={"sft": {"packing": packing}},
        adapter={adapter: {"rank": 8}},
        hyperparameters={"epochs": 1, "batchSize": 8, "maxLength": 256},
        compute={"saveSteps": 10_000, "resources": {"cpu": "4", "memory": "16Gi", "gpus": 1}},
    )
    prepared, trained = (_run(workspace, *stage) for stage in (["prepare"], ["train", "--attempt=1"]))
    if prepared.dataset is None or trained.training is None:
        raise SystemExit("the reports lack the numbers of tokens and seconds")
    return prepared.dataset.train_tokens / trained.training.seconds


def _run(workspace: Workspace, *arguments: str) -> StageReport:
    status, report = workspace.run_subprocess(*arguments)
    if status != 0 or report is None:
        raise SystemExit(f"{arguments[0]} exited with status {status}:\n{workspace.log[-3000:]}")
    return report
