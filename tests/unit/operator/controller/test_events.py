"""Kubernetes Events."""

from datetime import datetime, timedelta

from finetune_operator.controller.events import build_event
from finetune_operator.state.conditions import Event
from unit.objects import NOW


def test_the_same_event_has_the_same_name() -> None:
    about = {"apiVersion": "v", "kind": "k", "metadata": {"name": "a", "namespace": "n", "uid": "u"}}
    first = build_event(about, Event("Normal", "R", "m"), "one", NOW)
    second = build_event(about, Event("Normal", "R", "m"), "two", NOW + timedelta(seconds=5))
    other = build_event(about, Event("Normal", "R", "other"), "one", NOW)
    assert first["metadata"]["name"] == second["metadata"]["name"] != other["metadata"]["name"]


def test_a_message_is_cut_by_bytes_and_printable() -> None:
    about = {"apiVersion": "v", "kind": "k", "metadata": {"name": "a", "namespace": "n", "uid": "u"}}
    message = build_event(about, Event("Normal", "R", "\u001b[31m" + "ä" * 1024), "one", NOW)["message"]
    assert message.isprintable()
    assert len(message.encode()) == 1023


def test_kubectl_can_sort_events_by_time() -> None:
    about = {"apiVersion": "v", "kind": "k", "metadata": {"name": "a", "namespace": "n", "uid": "u"}}
    event = build_event(about, Event("Normal", "R", "m"), "one", NOW)
    assert event["apiVersion"] == "v1"
    assert datetime.fromisoformat(event["lastTimestamp"]) == NOW
    assert event["firstTimestamp"] == event["lastTimestamp"]
