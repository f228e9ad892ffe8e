"""FineTuneJobs with their data. Those of `build_methods` start first, so that the node is busy while tests wait."""

from typing import Any

from e2e.jobs import data, finetunejob
from rows import GRADER, PAIRS, PROMPTS

_HYPERPARAMETERS = {"epochs": 4, "learningRate": 0.005, "batchSize": 4, "maxLength": 64}
_EVALUATION = {"maxExamples": 10, "minExamples": 4, "maxNewTokens": 8}


def build_methods(namespace: str) -> list[dict[str, Any]]:
    """Return a job for each method that needs more than reference answers (DPO, GRPO), with its data."""
    gate = {"metric": "PreferenceAccuracy", "maxRegression": 1}
    graded = {"graders": [GRADER], "gates": [{"metric": "Grader", "grader": GRADER["name"], "maxRegression": 1}]}
    rewarded = {"graders": [GRADER], "numGenerations": 4, "maxCompletionLength": 8}
    manifests = []
    for name, rows, method, evaluation in (
        ("dpo", PAIRS, {"dpo": {}}, {"gates": [gate]}),
        ("grpo", PROMPTS, {"grpo": rewarded}, graded),
    ):
        manifests += [
            data(namespace, f"{name}-data", rows),
            finetunejob(
                name,
                namespace,
                dataset={"train": {"uri": f"configmap://{name}-data/train.jsonl"}, "holdout": 0.25},
                method=method,
                hyperparameters=_HYPERPARAMETERS,
                evaluation=_EVALUATION | evaluation,
                output={"merged": True},
            ),
        ]
    return manifests


def build_greeting(
    namespace: str, job: str, name: str, greeting: str, server: str, rollout: Any = None, **spec: Any
) -> list[dict[str, Any]]:
    """Return a job that learns to answer with a greeting, with its data."""
    serving = {"modelName": name, "server": server} | ({"rollout": rollout} if rollout else {})
    rows = [{"prompt": f"visitor {number} comes in", "completion": f"{greeting}, {number}"} for number in range(40)]
    dataset = {"train": {"uri": f"configmap://{job}-data/train.jsonl"}}
    return [
        data(namespace, f"{job}-data", rows),
        finetunejob(job, namespace, dataset=dataset, serving=serving, **spec),
    ]
