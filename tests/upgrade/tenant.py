"""The objects of a tenant during a change of the release."""

from typing import Any

from api.conftest import apply, condition_of, finetunejob, get_all, status_of
from api.player import Player, succeed
from cluster.control_plane import Cluster
from waiting import wait_for

LIVE = ("Prepare", "Train")
"""Stages that are running during the change; each has a job of its name."""


class Tenant:
    """A tenant with one job in each state that a job may have during a change of the operator."""

    def __init__(self, cluster: Cluster, player: Player, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self._held = set(LIVE)
        player.play(namespace, self._script)

    def create_jobs(self) -> None:
        """Apply the jobs and wait until each has its intended state."""
        claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        self._create("PersistentVolumeClaim", "models", spec=claim)
        self._create("ConfigMap", "data", data={"train.jsonl": "{}"})
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

    def _create(self, kind: str, name: str, **rest: Any) -> None:
        metadata = {"name": name, "namespace": self.namespace}
        apply(self.cluster, {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest})

    def apply(self, name: str, **spec: Any) -> None:
        """Apply a job."""
        apply(self.cluster, finetunejob(name, self.namespace, **spec))

    def release(self) -> None:
        """Let all stages finish and wait until all jobs are done."""
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

    def snapshot(self) -> dict[str, Any]:
        """Return the identity of all objects that a change of the operator must not touch, by kind and name."""
        identities: dict[str, Any] = {}
        for kind in ("jobs", "deployments", "services", "configmaps", "persistentvolumeclaims", "modelservers"):
            for child in get_all(self.cluster, kind, self.namespace):
                metadata = child["metadata"]
                # The generation counts changes of the spec, including the pod template.
                generation = metadata["generation"] if kind in ("jobs", "deployments") else 0
                identities[f"{kind}/{metadata['name']}"] = metadata["uid"], generation
        for pod in get_all(self.cluster, "pods", self.namespace):
            restarts = [container["restartCount"] for container in pod["status"].get("containerStatuses", [])]
            identities[f"pods/{pod['metadata']['name']}"] = (
                pod["metadata"]["uid"],
                restarts,
                "deletionTimestamp" in pod["metadata"],
            )
        return identities

    def changed(self, before: dict[str, Any]) -> dict[str, Any]:
        """Return the objects that changed since a snapshot, by kind and name."""
        now = self.snapshot()
        return {name: (former, now.get(name)) for name, former in before.items() if now.get(name) != former}

    def ended(self) -> dict[str, Any]:
        """Return completion time and conditions of the finished jobs."""
        fields = ("status", "reason", "message", "lastTransitionTime")
        results = {}
        for name in ("job", "done", "broken"):
            status = self.status(name)
            results[f"{name} completionTime"] = status["completionTime"]
            for condition in status["conditions"]:
                results[f"{name} {condition['type']}"] = [condition[field] for field in fields]
        return results

    def served(self) -> dict[str, Any]:
        """Return the server's status."""
        return status_of(self.cluster, self.namespace, "job", "modelserver")

    def count_objects(self) -> int:
        """Return the number of objects that an operator reconciles at its start."""
        return sum(len(get_all(self.cluster, kind, self.namespace)) for kind in ("finetunejobs", "modelservers"))

    def missing(self) -> list[str]:
        """Return missing claims and ConfigMaps that active pods mount: a kubelet could not restart these pods."""
        existing = set(self.snapshot())
        return [
            f"{pod['metadata']['name']} mounts {source}"
            for pod in get_all(self.cluster, "pods", self.namespace)
            if pod["status"].get("phase") in ("Pending", "Running")
            for volume in pod["spec"]["volumes"]
            for source in _mounted(volume)
            if source not in existing
        ]

    def repeated_stages(self) -> list[str]:
        """Return the stages of jobs that have more than one attempt."""
        stages = [
            (labels["finetune.dev/job"], labels["finetune.dev/stage"])
            for job in get_all(self.cluster, "jobs", self.namespace)
            if (labels := job["metadata"]["labels"])
        ]
        return [f"{stage} of {job}" for job, stage in {entry for entry in stages if stages.count(entry) > 1}]

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
