"""FineTuneJobs whose result was made by hand, for what comes after the proof."""

import json
from datetime import UTC, datetime

from e2e.kubectl import Kubectl
from finetune_api.artifact import Artifact
from finetune_api.conditions import ConditionType, Reason


def prove(kubectl: Kubectl, namespace: str, job: str, artifact: Artifact) -> None:
    """Write into the status of a job that waits for its approval that it was trained and passed its gates."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = (ConditionType.TRAINED, ConditionType.EVALUATED)
    conditions = [one for one in kubectl.status(namespace, job)["conditions"] if one["type"] not in done]
    conditions += [
        {"type": kind, "status": "True", "reason": Reason.SUCCEEDED, "message": "", "lastTransitionTime": now}
        for kind in done
    ]
    status = {"conditions": conditions, "artifact": artifact.to_dict()}
    kubectl.run(
        *("patch", "finetunejob", job, "-n", namespace, "--subresource=status", "--type=merge", "--patch"),
        json.dumps({"status": status}),
    )


def is_held(kubectl: Kubectl, namespace: str, job: str) -> bool:
    """Tell whether a job's data are checked and it waits for its approval."""
    return kubectl.condition(namespace, job, "Approved").get("status") == "False"
