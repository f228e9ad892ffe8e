"""What the operator reads from pods, settings and the clock."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import Attempts
from finetune_operator.attempts import Begin, Wait, last_begun, next_step
from finetune_operator.events import build_event
from finetune_operator.observe import Attempt, Stage, State, view_attempt
from finetune_operator.pods import parse_progress
from finetune_operator.settings import read_settings
from finetune_operator.status import Conditions, Event, format_seconds
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)
METRICS = """
# TYPE finetune_train_step gauge
finetune_train_step 41.0
finetune_train_steps 102.0
finetune_train_loss 2.125
finetune_train_remaining_seconds 95.4
"""


def test_progress_is_read_from_metrics() -> None:
    progress = parse_progress(METRICS)
    assert progress is not None
    assert progress.to_dict() == {
        "percentage": 40,
        "step": 41,
        "steps": 102,
        "remainingSeconds": 95,
        "loss": 2.125,
        "text": "40% 1m35s left",
    }


@pytest.mark.parametrize(
    "text",
    ["", "garbage {", "finetune_train_step 5\n", "finetune_train_step 5\nfinetune_train_steps 4\n"],
)
def test_metrics_that_make_no_sense_are_no_progress(text: str) -> None:
    assert parse_progress(text) is None


@given(st.text(max_size=300))
def test_no_answer_of_a_pod_is_a_traceback(text: str) -> None:
    parse_progress(text)


def test_a_loss_that_is_no_number_is_left_out() -> None:
    progress = parse_progress("finetune_train_step 1\nfinetune_train_steps 2\nfinetune_train_loss NaN\n")
    assert progress is not None
    assert progress.loss is None


def test_wrong_settings_name_the_field(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("images: {trainer: a, serving: b}\nauditSeconds: -1\n")
    with pytest.raises(ValueError, match="auditSeconds"):
        read_settings(file)
    with pytest.raises(ValueError, match="No such file"):
        read_settings(tmp_path / "none.yaml")


def test_a_transition_time_changes_with_the_status_only() -> None:
    conditions = Conditions.start([], 1, NOW)
    conditions.set(ConditionType.READY, status=False, reason=Reason.PREPARING)
    later = Conditions.start(conditions.listed(), 2, NOW + timedelta(hours=1))
    later.set(ConditionType.READY, status=False, reason=Reason.TRAINING)
    assert later.listed()[0].last_transition_time == NOW
    later.set(ConditionType.READY, status=True, reason=Reason.SERVING)
    assert later.listed()[0].last_transition_time == NOW + timedelta(hours=1)


def test_the_same_event_has_the_same_name() -> None:
    about = {"apiVersion": "v", "kind": "k", "metadata": {"name": "a", "namespace": "n", "uid": "u"}}
    first = build_event(about, Event("Normal", "R", "m"), "one", NOW)
    second = build_event(about, Event("Normal", "R", "m"), "two", NOW + timedelta(seconds=5))
    other = build_event(about, Event("Normal", "R", "other"), "one", NOW)
    assert first["metadata"]["name"] == second["metadata"]["name"] != other["metadata"]["name"]


@pytest.mark.parametrize(("seconds", "text"), [(5, "5s"), (200, "3m20s"), (7500, "2h05m")])
def test_time_is_written_as_people_do(seconds: int, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.lists(st.sampled_from([State.FAILED, State.DISRUPTED]), max_size=12), st.integers(0, 5))
def test_disruptions_never_use_up_retries(states: list[State], retries: int) -> None:
    attempts = [
        Attempt(Stage.TRAIN, number, f"t-{number}", state, finished=NOW - timedelta(hours=1))
        for number, state in enumerate(states, 1)
    ]
    step = next_step(Stage.TRAIN, attempts, len(attempts), retries, NOW)
    failures = states.count(State.FAILED)
    if failures <= retries:
        assert step == Begin(len(states) + 1)
    elif states[-1] is State.FAILED:
        assert not isinstance(step, Begin | Wait)


@pytest.mark.parametrize(
    ("ended", "pod", "state"),
    [
        ("Complete", {"phase": "Running"}, State.ACTIVE),
        ("Complete", {"phase": "Succeeded"}, State.SUCCEEDED),
        ("Failed", {"phase": "Running"}, State.ACTIVE),
        (
            "Failed",
            {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]},
            State.FAILED,
        ),
        (
            "Failed",
            {"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True"}]},
            State.DISRUPTED,
        ),
    ],
)
def test_an_attempt_is_judged_when_its_pod_is_known_to_have_ended(
    ended: str, pod: dict[str, Any], state: State
) -> None:
    conditions = [{"type": ended, "status": "True", "reason": "BackoffLimitExceeded"}]
    job = {"metadata": {"name": "job-train-1-abcdef"}, "status": {"conditions": conditions}}
    attempt = view_attempt(job, [{"metadata": {"name": "pod"}, "status": pod}])
    assert attempt
    assert attempt.state is state


def test_an_attempt_that_was_not_written_down_began_when_its_job_says() -> None:
    recorded, later = NOW - timedelta(hours=1), NOW - timedelta(minutes=1)
    attempts = [Attempt(Stage.TRAIN, number, f"train-{number}", State.ACTIVE, started=later) for number in (1, 2)]
    assert last_begun(attempts, Attempts(train=2), recorded, NOW) == recorded
    assert last_begun(attempts, Attempts(train=1), recorded, NOW) == later
    assert last_begun([Attempt(Stage.PREPARE, 1, "prepare-1", State.ACTIVE)], Attempts(), None, NOW) == NOW
    assert last_begun([], Attempts(), None, NOW) is None
