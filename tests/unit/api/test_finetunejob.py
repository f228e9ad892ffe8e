"""The rules of a FineTuneJob, as a reader of a manifest applies them."""

from typing import Any

import pytest
from finetune_api.finetunejob import FineTuneJobSpec
from pydantic import ValidationError
from unit.specs import SPEC


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {}}, "set exactly one method"),
        ({"adapter": {}}, "set exactly one adapter"),
        ({"model": {"uri": "ftp://bucket/key"}}, "uri\n  Value error, use "),
        ({"model": {"uri": "s3://b/key"}}, "uri\n  Value error, use "),
        ({"model": {"uri": "s3://bucket/../key"}}, "uri\n  Value error, use "),
        ({"model": {"uri": "s3://bucket/key", "revision": "main"}}, "revision can only be set for models on the Hub"),
        ({"model": {"uri": "pvc://models/base", "secretRef": {"name": "x"}}}, "models that are downloaded"),
        ({"dataset": {"train": {"uri": "https://example.com/x.jsonl?token=1"}}}, "uri\n  Value error, use "),
        ({"dataset": {"train": {"uri": "https://user@example.com/x.jsonl"}}}, "uri\n  Value error, use "),
        ({"dataset": {"train": {"uri": "https://example.com"}}}, "uri\n  Value error, use "),
        ({"dataset": {"train": {"uri": "http://example.com/x.jsonl"}}}, "uri\n  Value error, use "),
        ({"model": {"uri": "https://example.com/model"}}, "uri\n  Value error, use "),
        ({"model": {"uri": "finetunejob://first/adapter"}}, "uri\n  Value error, use "),
        ({"model": {"uri": "finetunejob://first", "secretRef": {"name": "x"}}}, "models that are downloaded"),
        ({"model": {"uri": "hf://org/name", "parentAdapter": "Merge"}}, "result of a parent job"),
        ({"model": {"uri": "hf://org/name", "chatTemplate": "pvc://a/b"}}, "use configmap://name/key"),
        ({"model": {"uri": "hf://org/name", "chatTemplate": "configmap://a/../b"}}, "use configmap://name/key"),
        ({"model": {"uri": "finetunejob://first", "chatTemplate": "configmap://a/b"}}, "keeps the chat template"),
        ({"dataset": {"train": {"uri": "configmap://d/x", "secretRef": {"name": "x"}}}}, "data that is downloaded"),
        ({"model": {"uri": "pvc://models/../etc"}}, "uri\n  Value error, use "),
        ({"model": {"uri": "pvc://models/base", "revision": "main"}}, "revision can only be set for models on the Hub"),
        (
            {"dataset": {"train": {"uri": "pvc://data/a"}, "validation": {"uri": "pvc://data/b"}, "holdout": 0.1}},
            "both",
        ),
        ({"dataset": {"train": {"uri": "pvc://data/a"}, "mix": [{"uri": "pvc://data/b"}]}}, "exactly one source of"),
        ({"dataset": {"holdout": 0.1}}, "exactly one source of training data: train, mix"),
        ({"dataset": {"mix": []}}, "at least 1 item"),
        ({"dataset": {"mix": [{"uri": "pvc://data/a", "weight": 0}]}}, "greater than 0"),
        ({"dataset": {"mix": [{"uri": "pvc://data/a", "revision": "v1"}]}}, "datasets on the Hub"),
        (
            {"dataset": {"mix": [{"uri": "pvc://data/a"}, {"uri": "pvc://data/b", "format": "Prompt"}]}},
            "method.sft needs",
        ),
        (
            {"dataset": {"train": {"uri": "pvc://data/a"}, "validation": {"uri": "pvc://data/b", "format": "Prompt"}}},
            "method.sft needs data with a format of Chat",
        ),
        ({"evaluation": {"gates": [{"metric": "Perplexity"}]}}, "exactly one of minGain and maxRegression"),
        ({"hyperparameters": {"batchSize": 8, "microBatchSize": 3}}, "must divide"),
        ({"serving": {"modelName": "x"}}, "exactly one of server and template"),
        ({"serving": {"modelName": "base", "server": "s"}}, "reserved for the base model"),
        ({"serving": {"modelName": "x--y", "server": "s"}}, "such as support-bot"),
        (
            {"adapter": {"lora": {"rank": 32}}, "serving": {"modelName": "x", "template": {"lora": {"maxRank": 8}}}},
            "must not be greater",
        ),
    ],
)
def test_wrong_specs_are_refused_with_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FineTuneJobSpec.model_validate(SPEC | changes)
