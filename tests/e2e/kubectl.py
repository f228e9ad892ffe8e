"""kubectl for the tests: objects as dictionaries, and waits that show the state on timeout."""

import json
from dataclasses import dataclass
from typing import Any

from cluster.control_plane import Cluster
from cluster.layout import ClusterError
from waiting import wait_for


@dataclass(frozen=True)
class Kubectl:
    """A cluster with administrator credentials."""

    cluster: Cluster

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output."""
        return self.cluster.run_kubectl(*arguments, stdin=stdin)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply objects."""
        self.run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None."""
        text = self.run("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text else None

    def items(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        """Return all objects of a kind in a namespace."""
        return list(json.loads(self.run("get", kind, "-n", namespace, "-o", "json"))["items"])

    def status(self, namespace: str, job: str) -> dict[str, Any]:
        """Return the status of a FineTuneJob."""
        manifest = self.get("finetunejob", namespace, job)
        return dict(manifest.get("status", {})) if manifest else {}

    def condition(self, namespace: str, job: str, kind: str) -> dict[str, Any]:
        """Return a condition of a FineTuneJob; empty where it is not set."""
        conditions = self.status(namespace, job).get("conditions", [])
        return next((dict(condition) for condition in conditions if condition["type"] == kind), {})

    def wait_for_condition(self, namespace: str, job: str, kind: str, seconds: float) -> dict[str, Any]:
        """Wait until a condition of a FineTuneJob is true; fail at once when the job has failed."""

        def holds() -> bool:
            if kind != "Failed" and self.condition(namespace, job, "Failed").get("status") == "True":
                raise AssertionError(self.explain(namespace, job))
            return self.condition(namespace, job, kind).get("status") == "True"

        wait_for(holds, lambda: f"{kind} of {job}: {self.explain(namespace, job)}", seconds)
        return self.condition(namespace, job, kind)

    def explain(self, namespace: str, job: str) -> str:
        """Return status, objects, events and logs, for the message of a failed wait."""
        parts = [json.dumps(self.status(namespace, job), indent=1)]
        for command in (
            ("get", "pods,jobs,modelservers", "-n", namespace, "-o", "wide"),
            ("get", "events", "-n", namespace, "--sort-by=.metadata.creationTimestamp"),
            ("logs", "-n", namespace, "-l", "app.kubernetes.io/managed-by=finetune-operator", "--tail=30", "--prefix"),
            (
                "logs",
                "-n",
                "finetune-system",
                "-l",
                "app.kubernetes.io/name=finetune-operator",
                "--tail=40",
                "--prefix",
            ),
        ):
            try:
                parts.append(self.run(*command))
            except ClusterError as error:
                parts.append(str(error))
        return "\n".join(parts)
