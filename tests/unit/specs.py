"""The smallest valid FineTuneJob, with the changes of a test."""

from typing import Any

from finetune_api.contract.jobfile import JobFile
from finetune_api.finetunejob import FineTuneJobSpec

SPEC: dict[str, Any] = {
    "model": {"uri": "pvc://models/base"},
    "dataset": {"train": {"uri": "configmap://data/train.jsonl"}},
    "method": {"sft": {}},
    "adapter": {"lora": {}},
}


def spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(SPEC | changes)


def job_file(**changes: Any) -> JobFile:
    return JobFile("shop", "0123456789", spec(**changes))
