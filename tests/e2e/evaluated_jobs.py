"""FineTuneJobs with an artifact that a test made, for tests of what follows the evaluation."""

import json
from datetime import UTC, datetime

from e2e.kubectl import Kubectl
from finetune_api.artifact import Artifact
from finetune_api.conditions import ConditionType, Reason


def set_trained_and_evaluated(kubectl: Kubectl, namespace: str, job: str, artifact: Artifact) -> None:
    """Set a job that waits for approval to trained and evaluated, with the given artifact."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = (ConditionType.TRAINED, ConditionType.EVALUATED)
    conditions = [
        condition for condition in kubectl.status(namespace, job)["conditions"] if condition["type"] not in done
    ]
    conditions += [
        {"type": kind, "status": "True", "reason": Reason.SUCCEEDED, "message": "", "lastTransitionTime": now}
        for kind in done
    ]
    status = {"conditions": conditions, "artifact": artifact.to_dict()}
    kubectl.run(
        *("patch", "finetunejob", job, "-n", namespace, "--subresource=status", "--type=merge", "--patch"),
        json.dumps({"status": status}),
    )


def waits_for_approval(kubectl: Kubectl, namespace: str, job: str) -> bool:
    """Return whether a job is prepared and waits for approval."""
    return kubectl.condition(namespace, job, "Approved").get("status") == "False"
