"""Detects whether a live child differs from the desired one, and builds the update or patch that corrects it.

The operator reverts changes of the fields that it sets; additions (an annotation, the API server's defaults) stay.
"""

from decimal import Decimal
from typing import Any

from finetune_api.digest import digest_value
from finetune_api.meta import APPLIED_ANNOTATION
from finetune_api.quantity import parse_quantity

from finetune_operator.kube.kinds import Manifest

CREATE_ONLY = frozenset({"Job", "PersistentVolumeClaim"})
"""Kinds that are created and never updated: a Job's template is immutable, and a claim keeps its size."""

_SELECTORS = frozenset({"selector", "podSelector", "matchLabels", "nodeSelector"})
"""Fields that must match exactly: an additional label would select fewer objects."""


def add_last_applied_hash(desired: Manifest) -> Manifest:
    """Return a child with the hash of its desired state as an annotation: a later desired state has another hash."""
    annotations = desired["metadata"].get("annotations", {}) | {APPLIED_ANNOTATION: digest_value(desired)}
    return desired | {"metadata": desired["metadata"] | {"annotations": annotations}}


def is_up_to_date(desired: Manifest, live: Manifest) -> bool:
    """Return whether a child needs no update: its desired state has not changed, and no one has edited it."""
    last_applied = live["metadata"].get("annotations", {}).get(APPLIED_ANNOTATION)
    return last_applied == digest_value(desired) and _covers(live, desired)


def build_job_patch(labels: dict[str, str], live: Manifest) -> Manifest | None:
    """Return the merge patch that reverts edits of an attempt's Job; None if there are none.

    It leaves `suspend` to Kueue; the template is immutable.

    Args:
        labels: the desired labels, which the watch and the lookup need.
        live: the Job.
    """
    live_labels, spec = live["metadata"].get("labels", {}), live["spec"]
    changed_labels = {name: value for name, value in labels.items() if live_labels.get(name) != value}
    spec_patch: Manifest = {}
    if spec.get("parallelism") != spec.get("completions"):
        spec_patch["parallelism"] = spec.get("completions")
    if "ttlSecondsAfterFinished" in spec:
        # Kubernetes would delete the Job and its report before the operator reads it.
        spec_patch["ttlSecondsAfterFinished"] = None
    metadata_part = {"metadata": {"labels": changed_labels}} if changed_labels else {}
    return metadata_part | ({"spec": spec_patch} if spec_patch else {}) or None


def build_update(desired: Manifest, live: Manifest) -> Manifest:
    """Return the object that replaces a child that is not up to date; its resource version is the live one's."""
    update = add_last_applied_hash(desired)
    metadata, live_metadata = update["metadata"], live["metadata"]
    merged = metadata | {
        "uid": live_metadata["uid"],
        "resourceVersion": live_metadata["resourceVersion"],
        "labels": live_metadata.get("labels", {}) | metadata["labels"],
        "annotations": live_metadata.get("annotations", {}) | metadata["annotations"],
    }
    if "finalizers" in live_metadata:
        merged["finalizers"] = live_metadata["finalizers"]
    update |= {"metadata": merged}
    match desired["kind"]:
        case "Deployment":
            return _preserve_deployment_fields(update, live)
        case "ModelServer" if "pins" in live.get("spec", {}):
            # Pins belong to the user, also on a server that a job created.
            return update | {"spec": update["spec"] | {"pins": live["spec"]["pins"]}}
    return update


def _preserve_deployment_fields(update: Manifest, live: Manifest) -> Manifest:
    """Return the update with the live `replicas` if an autoscaler sets them, and with the live pod annotations.

    `kubectl rollout restart` sets such an annotation.
    """
    spec = dict(update["spec"])
    if "replicas" not in spec and "replicas" in live.get("spec", {}):
        spec["replicas"] = live["spec"]["replicas"]
    added = live.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations")
    if added:
        template = spec["template"]
        annotations = added | template["metadata"].get("annotations", {})
        spec["template"] = template | {"metadata": template["metadata"] | {"annotations": annotations}}
    return update | {"spec": spec}


def _covers(live: Any, desired: Any) -> bool:
    """Return whether a live value contains the desired one. Empty equals absent, as for the API server."""
    if isinstance(desired, dict) and isinstance(live, dict):
        if any(live.get(name, {}).keys() != desired[name].keys() for name in _SELECTORS & desired.keys()):
            return False
        return (bool(desired) or not live) and all(_covers(live.get(name), part) for name, part in desired.items())
    if isinstance(desired, list) and isinstance(live, list):
        return len(desired) == len(live) and all(map(_covers, live, desired))
    if not desired and not live:
        return True
    return bool(live == desired) or (
        isinstance(live, str)
        and isinstance(desired, str)
        and (quantity := _parse_quantity(live)) is not None
        and quantity == _parse_quantity(desired)
    )


def _parse_quantity(text: str) -> Decimal | None:
    """Return the value of a Kubernetes quantity; None if the text is none. The API server writes `1000m` as `1`."""
    try:
        return parse_quantity(text)
    except ValueError:
        return None
