"""Reads the ConfigMaps and claims that a waiting pod mounts: the pod's status does not name them. Writes nothing."""

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.kinds import CLAIM, CONFIGMAP
from finetune_operator.manifests.stages import build_volumes
from finetune_operator.state.child_jobs import Attempt
from finetune_operator.state.views import JobView


async def read_volumes(client: KubeClient, job: JobView, attempts: list[Attempt]) -> tuple[list[str], list[str]]:
    """Return what the waiting pod of an attempt cannot mount; reads nothing if no pod waits for its volumes.

    Returns:
        The missing objects, such as `ConfigMap data`, and the names of the claims that are not bound.
    """
    attempt = next((attempt for attempt in attempts if attempt.waits_for_volumes), None)
    if attempt is None or job.spec is None:
        return [], []
    volumes = build_volumes(job, attempt.stage)
    missing = [
        f"{CONFIGMAP.name} {name}"
        for name in volumes.config_maps
        if await client.get(CONFIGMAP, job.namespace, name, metadata_only=True) is None
    ]
    unbound = []
    for name in volumes.claims:
        claim = await client.get(CLAIM, job.namespace, name)
        if claim is None:
            missing.append(f"{CLAIM.name} {name}")
        elif attempt.waiting and claim.get("status", {}).get("phase") != "Bound":
            unbound.append(name)
    return missing, unbound
