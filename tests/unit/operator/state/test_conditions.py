"""Conditions and times of a status."""

from datetime import timedelta

import pytest
from finetune_api.conditions import ConditionType, Reason
from finetune_operator.state.conditions import Conditions, format_seconds
from finetune_operator.state.views import view_job
from unit.objects import NOW, condition, job


def test_a_transition_time_changes_with_the_status_only() -> None:
    conditions = Conditions.start([], 1, NOW)
    conditions.set(ConditionType.READY, status=False, reason=Reason.PREPARING)
    later = Conditions.start(conditions.listed(), 2, NOW + timedelta(hours=1))
    later.set(ConditionType.READY, status=False, reason=Reason.TRAINING)
    assert later.listed()[0].last_transition_time == NOW
    later.set(ConditionType.READY, status=True, reason=Reason.SERVING)
    assert later.listed()[0].last_transition_time == NOW + timedelta(hours=1)


@pytest.mark.parametrize(("seconds", "text"), [(5, "5s"), (200, "3m20s"), (7500, "2h05m")])
def test_time_is_written_as_people_do(seconds: int, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_condition_of_someone_else_is_left_out() -> None:
    before = view_job(job(status={"conditions": [condition("Foreign"), condition("Trained")]})).status.conditions
    conditions = Conditions.start(before, 1, NOW)
    conditions.set(ConditionType.READY, status=False, reason=Reason.TRAINING)
    assert [condition.type for condition in conditions.listed()] == ["Trained", "Ready"]


def test_the_message_of_a_condition_is_printable() -> None:
    conditions = Conditions.start([], 1, NOW)
    conditions.set(ConditionType.READY, status=False, reason=Reason.UNSCHEDULABLE, message="0/1 nodes\u001b[2J\n")
    assert conditions.listed()[0].message == "0/1 nodes [2J "
