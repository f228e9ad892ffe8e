"""FineTuneJobs and their data for the tests on the real node.

The pods request little CPU, so that several run at once; each may use the idle cores.
"""

import json
from typing import Any

MODEL_URI = "pvc://models/tiny"


def conversations(count: int) -> str:
    """Return different conversations in OpenAI's chat format as JSON Lines."""
    lines = []
    for number in range(count):
        messages = [
            {"role": "user", "content": f"what does thing {number} cost?"},
            {"role": "assistant", "content": f"thing {number} costs {number} euros"},
        ]
        lines.append(json.dumps({"messages": messages}))
    return "\n".join(lines) + "\n"


def finetunejob(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Return a small FineTuneJob; `spec` replaces whole groups of fields."""
    small = {"resources": {"cpu": "400m", "memory": "2Gi"}}
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"uri": MODEL_URI},
            "dataset": {"train": {"uri": "configmap://data/train.jsonl"}},
            "method": {"sft": {}},
            "adapter": {"lora": {"rank": 8, "alpha": 16}},
            "hyperparameters": {
                "epochs": 3,
                "learningRate": 0.005,
                "batchSize": 2,
                "microBatchSize": 2,
                "maxLength": 128,
            },
            "compute": small | {"saveSteps": 5},
            "evaluation": {
                "maxExamples": 6,
                "minExamples": 4,
                "maxNewTokens": 16,
                "gates": [{"metric": "Perplexity", "minGain": 0}],
            },
        }
        | spec,
    }


def modelserver(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """Return a ModelServer of the base model of the jobs; `spec` replaces whole groups of fields."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": MODEL_URI}, "resources": {"cpu": "400m", "memory": "6Gi"}} | spec,
    }


def data(namespace: str, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a ConfigMap with rows as training data."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"train.jsonl": text}}
