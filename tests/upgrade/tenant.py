"""What a tenant has in the cluster while the releases change."""

from typing import Any

from api.conftest import apply, condition_of, finetunejob, get_all, status_of
from api.player import Player, succeed
from cluster.control_plane import Cluster
from waiting import wait_for

LIVE = ("Prepare", "Train")
"""Stages in which the jobs of their name are while the releases change."""


class Tenant:
    """What a tenant has in the cluster: a job in each place where one may be while the operator changes."""

    def __init__(self, cluster: Cluster, player: Player, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self._held = set(LIVE)
        player.play(namespace, self._script)

    def begin(self) -> None:
        """Apply the jobs and wait until each is where it is meant to be."""
        claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        self._make("PersistentVolumeClaim", "models", spec=claim)
        self._make("ConfigMap", "data", data={"train.jsonl": "{}"})
        self.apply("job", serving={"modelName": "bot", "template": {}})
        self.apply("done")
        self.apply("broken")
        self.apply("asking", budget={"maxCost": 5})
        self.apply("prepare")
        self.apply("train", compute={"nodes": 2}, serving={"modelName": "second", "template": {}})
        self.wait_for("job", "Ready", "True", "Serving")
        self.wait_for("done", "Ready", "True", "Completed")
        self.wait_for("broken", "Failed", "True", "DatasetInvalid")
        self.wait_for("asking", "Approved", "False", "BudgetExceeded")
        self.wait_for("prepare", "Ready", "False", "Preparing")
        wait_for(lambda: self.status("train").get("progress", {}).get("step") == 2, lambda: str(self.status("train")))

    def _make(self, kind: str, name: str, **rest: Any) -> None:
        metadata = {"name": name, "namespace": self.namespace}
        apply(self.cluster, {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest})

    def apply(self, name: str, **spec: Any) -> None:
        """Apply a job."""
        apply(self.cluster, finetunejob(name, self.namespace, **spec))

    def release(self) -> None:
        """Let every stage come to its end, and wait until every job has."""
        self._held.clear()
        self.cluster.run_kubectl(
            "patch", "ftj", "asking", "-n", self.namespace, "--type=merge", '-p={"spec":{"approved":true}}'
        )
        for name in ("asking", "prepare"):
            self.wait_for(name, "Ready", "True", "Completed")
        for name in ("job", "train"):
            self.wait_for(name, "Ready", "True", "Serving")

    def status(self, name: str) -> dict[str, Any]:
        """Return a job's status."""
        return status_of(self.cluster, self.namespace, name)

    def wait_for(self, name: str, kind: str, status: str, reason: str) -> None:
        """Wait for a condition of a job."""
        wait_for(
            lambda: condition_of(self.status(name), kind) == (status, reason),
            lambda: f"{kind} of {name}: {self.status(name)}",
        )

    def running(self) -> dict[str, Any]:
        """Return what no change of the operator may touch, by kind and name."""
        found: dict[str, Any] = {}
        for kind in ("jobs", "deployments", "services", "configmaps", "persistentvolumeclaims", "modelservers"):
            for one in get_all(self.cluster, kind, self.namespace):
                metadata = one["metadata"]
                # The generation counts changes of the spec: a pod template that changed shows here.
                spec = metadata["generation"] if kind in ("jobs", "deployments") else 0
                found[f"{kind}/{metadata['name']}"] = metadata["uid"], spec
        for pod in get_all(self.cluster, "pods", self.namespace):
            began = [one["restartCount"] for one in pod["status"].get("containerStatuses", [])]
            found[f"pods/{pod['metadata']['name']}"] = (
                pod["metadata"]["uid"],
                began,
                "deletionTimestamp" in pod["metadata"],
            )
        return found

    def changed(self, before: dict[str, Any]) -> dict[str, Any]:
        """Return what is not any more as it was before, by kind and name; empty where all of it is."""
        now = self.running()
        return {name: (what, now.get(name)) for name, what in before.items() if now.get(name) != what}

    def ended(self) -> dict[str, Any]:
        """Return when and how each job ended, by job and condition; messages may differ between releases."""
        fields = ("status", "reason", "lastTransitionTime")
        found = {}
        for name in ("job", "done", "broken"):
            status = self.status(name)
            found[f"{name} completionTime"] = status["completionTime"]
            for one in status["conditions"]:
                found[f"{name} {one['type']}"] = [one[field] for field in fields]
        return found

    def served(self) -> dict[str, Any]:
        """Return what the server says."""
        return status_of(self.cluster, self.namespace, "job", "modelserver")

    def objects(self) -> int:
        """Return how many objects an operator looks at when it starts."""
        return sum(len(get_all(self.cluster, kind, self.namespace)) for kind in ("finetunejobs", "modelservers"))

    def missing(self) -> list[str]:
        """Return what pods that have not ended mount though it is not there: a kubelet could not start them again."""
        there = set(self.running())
        return [
            f"{pod['metadata']['name']} mounts {wanted}"
            for pod in get_all(self.cluster, "pods", self.namespace)
            if pod["status"].get("phase") in ("Pending", "Running")
            for volume in pod["spec"]["volumes"]
            for wanted in _mounted(volume)
            if wanted not in there
        ]

    def begun_twice(self) -> list[str]:
        """Return the stages of jobs that were begun more than once."""
        begun = [
            (labels["finetune.dev/job"], labels["finetune.dev/stage"])
            for job in get_all(self.cluster, "jobs", self.namespace)
            if (labels := job["metadata"]["labels"])
        ]
        return [f"{stage} of {job}" for job, stage in {one for one in begun if begun.count(one) > 1}]

    def _script(self, pod: dict[str, Any]) -> tuple[int, str] | None:
        job, stage = (pod["metadata"]["labels"][f"finetune.dev/{name}"] for name in ("job", "stage"))
        if job == "broken":
            return 65, '{"outcome": "Failed", "reason": "DatasetInvalid", "message": "line 3: not JSON"}'
        return None if stage in self._held and job == stage.lower() else succeed(pod)


def _mounted(volume: dict[str, Any]) -> list[str]:
    claim, config_map = volume.get("persistentVolumeClaim"), volume.get("configMap")
    return [
        *([f"persistentvolumeclaims/{claim['claimName']}"] if claim else []),
        *([f"configmaps/{config_map['name']}"] if config_map else []),
    ]
