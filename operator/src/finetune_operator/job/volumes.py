"""Why a pod of a job cannot mount its volumes. No I/O."""

from finetune_api.conditions import Reason
from finetune_api.contract.mounts import DEFAULT_CLAIM

from finetune_operator.job.acceptance import Problem
from finetune_operator.settings import Artifacts


def explain_volumes(missing: list[str], unbound: list[str], artifacts: Artifacts) -> Problem | None:
    """Return what a pod waits for; None if its volumes are not the cause.

    Args:
        missing: the ConfigMaps and claims that do not exist, each with its kind.
        unbound: the names of the claims that are not bound to a volume.
        artifacts: how the operator creates the namespace's claim.
    """
    if missing:
        return Reason.VOLUME_NOT_FOUND, (
            f"missing in the namespace: {', '.join(missing)}; create it, and the pod starts within minutes,"
            " or create another FineTuneJob with the right name"
        )
    if not unbound:
        return None
    message = "; ".join(
        f"PersistentVolumeClaim {claim} is not bound to a volume, kubectl describe pvc {claim} has the cause"
        for claim in unbound
    )
    if DEFAULT_CLAIM in unbound:
        name = artifacts.storage_class_name
        storage_class = f"the storage class {name}" if name else "the cluster's default storage class"
        message += (
            f"; the operator created {DEFAULT_CLAIM} with the access mode {artifacts.access_mode} and"
            f" {storage_class}: if that class has no such volumes, set artifacts.storageClassName or"
            " artifacts.accessMode of the chart and delete the claim"
        )
    return Reason.UNSCHEDULABLE, message
