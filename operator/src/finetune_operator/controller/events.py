"""Builds the Kubernetes Event for a change of a condition. No I/O."""

from datetime import datetime

from finetune_api.contract.untrusted import make_printable
from finetune_api.digest import digest_value

from finetune_operator.kube.kinds import Manifest
from finetune_operator.state.conditions import Event

REPORTER = "finetune.dev/operator"
"""`reportingComponent` of the operator's Events."""
_MESSAGE_BYTES = 1024
"""The API server limits a message by bytes, not by characters."""


def build_event(about: Manifest, event: Event, instance: str, now: datetime) -> Manifest:
    """Return the Event. Its name is derived from its content, so that a repeated create makes no second Event.

    It is one of `v1`: `kubectl describe` sorts Events by `lastTimestamp`, which `events.k8s.io/v1` does not allow.
    """
    metadata = about["metadata"]
    digest = digest_value([metadata["uid"], event.reason, event.message])[:16]
    time = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": metadata["namespace"]},
        "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "type": event.type,
        "reason": event.reason,
        "action": "Reconcile",
        "message": _shorten(make_printable(event.message)),
        "reportingComponent": REPORTER,
        "reportingInstance": instance,
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }


def _shorten(text: str) -> str:
    return text.encode()[:_MESSAGE_BYTES].decode(errors="ignore")
