"""Whether a child is as it should be, and what is written where it is not. Pure.

What somebody else set where the operator wants something is set back; what was added beside it (an annotation, the
API server's defaults) is left alone.
"""

from decimal import Decimal
from typing import Any

from finetune_api.digest import digest_value
from finetune_api.meta import APPLIED_ANNOTATION
from finetune_api.quantity import parse_quantity

from finetune_operator.kube.kinds import Manifest

MADE_ONCE = frozenset({"Job", "PersistentVolumeClaim"})
"""Kinds that are made and then left as they are: a Job cannot be changed, and a claim keeps its size."""

_SELECTORS = frozenset({"selector", "podSelector", "matchLabels", "nodeSelector"})
"""Where a label more is another meaning: what is selected is less."""


def seal(wanted: Manifest) -> Manifest:
    """Return a child as it is created: with the digest by which a later wish is told from this one."""
    annotations = wanted["metadata"].get("annotations", {}) | {APPLIED_ANNOTATION: digest_value(wanted)}
    return wanted | {"metadata": wanted["metadata"] | {"annotations": annotations}}


def is_as_wanted(wanted: Manifest, live: Manifest) -> bool:
    """Tell whether a child needs no update: nobody wishes it otherwise, and nobody changed it."""
    applied = live["metadata"].get("annotations", {}).get(APPLIED_ANNOTATION)
    return applied == digest_value(wanted) and _covers(live, wanted)


def mend_job(labels: dict[str, str], live: Manifest) -> Manifest | None:
    """Return what is merged into a stage's Job that somebody changed; None where nothing is.

    Whether it is suspended is Kueue's to say, and its template nobody can change.

    Args:
        labels: by which it is watched and found.
        live: the Job.
    """
    theirs, spec = live["metadata"].get("labels", {}), live["spec"]
    wrong = {name: value for name, value in labels.items() if theirs.get(name) != value}
    mended: Manifest = {}
    if spec.get("parallelism") != spec.get("completions"):
        mended["parallelism"] = spec.get("completions")
    if "ttlSecondsAfterFinished" in spec:
        # It would take the report away before it is read.
        mended["ttlSecondsAfterFinished"] = None
    return ({"metadata": {"labels": wrong}} if wrong else {}) | ({"spec": mended} if mended else {}) or None


def build_update(wanted: Manifest, live: Manifest) -> Manifest:
    """Return what replaces a child that is not as wanted; it holds for the version that was seen only."""
    sealed = seal(wanted)
    ours, theirs = sealed["metadata"], live["metadata"]
    metadata = ours | {
        "uid": theirs["uid"],
        "resourceVersion": theirs["resourceVersion"],
        "labels": theirs.get("labels", {}) | ours["labels"],
        "annotations": theirs.get("annotations", {}) | ours["annotations"],
    }
    if "finalizers" in theirs:
        metadata["finalizers"] = theirs["finalizers"]
    update = sealed | {"metadata": metadata}
    match wanted["kind"]:
        case "Deployment":
            return _keep_of_deployment(update, live)
        case "ModelServer" if "pins" in live.get("spec", {}):
            # They are the user's, also on a server that a job made.
            return update | {"spec": update["spec"] | {"pins": live["spec"]["pins"]}}
    return update


def _keep_of_deployment(update: Manifest, live: Manifest) -> Manifest:
    """Leave the autoscaler its number of pods, and whoever restarted the pods by an annotation his restart."""
    spec = dict(update["spec"])
    if "replicas" not in spec and "replicas" in live.get("spec", {}):
        spec["replicas"] = live["spec"]["replicas"]
    added = live.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations")
    if added:
        template = spec["template"]
        annotations = added | template["metadata"].get("annotations", {})
        spec["template"] = template | {"metadata": template["metadata"] | {"annotations": annotations}}
    return update | {"spec": spec}


def _covers(live: Any, wanted: Any) -> bool:
    """Tell whether a live value says all that is wanted; nothing wanted is nothing there, as the API server has it."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        if any(live.get(name, {}).keys() != wanted[name].keys() for name in _SELECTORS & wanted.keys()):
            return False
        return (bool(wanted) or not live) and all(_covers(live.get(name), part) for name, part in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(wanted) == len(live) and all(map(_covers, live, wanted))
    if not wanted and not live:
        return True
    return bool(live == wanted) or (
        isinstance(live, str)
        and isinstance(wanted, str)
        and (amount := _amount(live)) is not None
        and amount == _amount(wanted)
    )


def _amount(text: str) -> Decimal | None:
    """Return the amount of a Kubernetes quantity, since the API server writes `1000m` as `1`; None of another text."""
    try:
        return parse_quantity(text)
    except ValueError:
        return None
