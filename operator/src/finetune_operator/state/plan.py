"""What a reconciliation should do about one object: the result of `plan_job` and `plan_server`."""

from dataclasses import dataclass

from finetune_operator.kube.kinds import Kind, Manifest
from finetune_operator.state.conditions import Event

REQUEUE_SOON_SECONDS = 0.1
"""Requeue delay after a write whose result the next reconciliation needs."""


@dataclass(frozen=True)
class Deletion:
    """An object to delete, on the precondition that its uid and resource version are still these."""

    kind: Kind
    name: str
    uid: str
    version: str


@dataclass(frozen=True)
class Plan:
    """What to do about one FineTuneJob or ModelServer."""

    desired: tuple[Manifest, ...]
    """Child objects to apply."""
    status: Manifest
    """The object's next status."""
    events: tuple[Event, ...]
    """Events to publish once the status is written."""
    requeue_after: float | None = None
    """Seconds until the next reconciliation, even if no watch reports a change."""
    deletions: tuple[Deletion, ...] = ()
    """Objects to delete once the status is written."""
    pod_annotations: tuple[tuple[str, dict[str, str]], ...] = ()
    """Names of pods and the annotations to set on them: the kubelet then refreshes their routes at once."""
