"""The next step of a stage, from its attempts."""

from datetime import UTC, datetime, timedelta

import pytest
from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import FAILURES, ExitCode
from finetune_api.contract.reports import StageReport
from finetune_api.jobstatus import MAX_ATTEMPTS, Attempts
from finetune_api.stage import Stage
from finetune_operator.job.attempts import GiveUp, StartAttempt, Wait, last_start_time, next_action
from finetune_operator.state.child_jobs import Attempt, AttemptState
from hypothesis import given
from hypothesis import strategies as st
from unit.objects import NOW


@given(st.lists(st.sampled_from([AttemptState.FAILED, AttemptState.DISRUPTED]), max_size=12), st.integers(0, 5))
def test_disruptions_never_use_up_retries(states: list[AttemptState], retries: int) -> None:
    attempts = [
        Attempt(Stage.TRAIN, number, f"t-{number}", state, finished=NOW - timedelta(hours=1))
        for number, state in enumerate(states, 1)
    ]
    step = next_action(Stage.TRAIN, attempts, len(attempts), retries, NOW)
    failures = states.count(AttemptState.FAILED)
    if failures <= retries:
        assert step == StartAttempt(len(states) + 1)
    elif states[-1] is AttemptState.FAILED:
        assert not isinstance(step, StartAttempt | Wait)


def test_an_attempt_that_the_status_does_not_record_started_when_its_job_says() -> None:
    recorded, later = NOW - timedelta(hours=1), NOW - timedelta(minutes=1)
    attempts = [
        Attempt(Stage.TRAIN, number, f"train-{number}", AttemptState.ACTIVE, started=later) for number in (1, 2)
    ]
    assert last_start_time(attempts, Attempts(train=2), recorded, NOW) == recorded
    assert last_start_time(attempts, Attempts(train=1), recorded, NOW) == later
    assert last_start_time([Attempt(Stage.PREPARE, 1, "prepare-1", AttemptState.ACTIVE)], Attempts(), None, NOW) == NOW
    assert last_start_time([], Attempts(), None, NOW) is None


def disrupted(count: int) -> list[Attempt]:
    return [
        Attempt(Stage.TRAIN, number, f"t{number}", AttemptState.DISRUPTED, finished=NOW)
        for number in range(1, count + 1)
    ]


@given(st.integers(1, 5_000))
def test_endless_disruptions_back_off_for_five_minutes_at_most(count: int) -> None:
    step = next_action(Stage.TRAIN, disrupted(count), count, 0, NOW)
    assert isinstance(step, Wait)
    assert step.until is not None
    assert timedelta(seconds=10) <= step.until - NOW <= timedelta(minutes=5)
    assert count == 1 or step.until - NOW >= timedelta(seconds=20)


def test_a_stage_whose_job_vanished_waits_before_its_next_attempt() -> None:
    step = next_action(Stage.TRAIN, [], 3, 0, NOW, NOW - timedelta(seconds=1))
    assert isinstance(step, Wait)
    assert step.until == NOW + timedelta(seconds=39)
    assert next_action(Stage.TRAIN, [], 3, 0, NOW, NOW - timedelta(seconds=40)) == StartAttempt(4)
    assert next_action(Stage.TRAIN, [], 3, 0, NOW) == StartAttempt(4)


def test_a_job_that_is_being_deleted_does_not_count_as_an_attempt() -> None:
    going = Attempt(Stage.TRAIN, 1, "t1", AttemptState.FAILED, is_terminating=True, finished=NOW)
    assert next_action(Stage.TRAIN, [going], 1, 0, NOW) == StartAttempt(2)


RETRIED = {
    Reason.CHECKPOINT_DAMAGED,
    Reason.EVALUATION_FAILED,
    Reason.EXPORT_FAILED,
    Reason.PREPARE_FAILED,
    Reason.RATE_LIMITED,
    Reason.RETRYING,
    Reason.SOURCE_UNREACHABLE,
    Reason.STORAGE_FULL,
    Reason.TRAINING_FAILED,
}
"""Of the reasons that a stage can report; it fails at once for all others."""


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("reason", FAILURES)
def test_only_failures_that_may_pass_are_retried(stage: Stage, reason: Reason) -> None:
    report = StageReport(outcome="Failed", reason=reason, message="why")
    failed = Attempt(
        stage,
        1,
        "a",
        AttemptState.FAILED,
        exit_code=report.exit_code,
        report=report,
        finished=NOW - timedelta(hours=1),
    )
    step = next_action(stage, [failed], 1, 3, NOW)
    assert step == (StartAttempt(2) if reason in RETRIED else GiveUp(reason, "why"))


@pytest.mark.parametrize("code", [*ExitCode, 1, 137])
def test_without_a_report_only_the_exit_code_for_memory_ends_the_stage(code: int) -> None:
    failed = Attempt(Stage.TRAIN, 1, "a", AttemptState.FAILED, exit_code=code, finished=NOW - timedelta(hours=1))
    step = next_action(Stage.TRAIN, [failed], 1, 3, NOW)
    if code == ExitCode.OUT_OF_MEMORY:
        assert isinstance(step, GiveUp)
        assert step.reason is Reason.OUT_OF_MEMORY
    else:
        assert step == StartAttempt(2)


LAST_YEAR = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_an_end_in_the_future_delays_nothing() -> None:
    failed = Attempt(Stage.TRAIN, 1, "a", AttemptState.FAILED, finished=LAST_YEAR)
    step = next_action(Stage.TRAIN, [failed], 1, 3, NOW)
    assert isinstance(step, Wait)
    assert step.until == NOW + timedelta(seconds=10)
    unborn = Attempt(Stage.TRAIN, 1, "a", AttemptState.ACTIVE, started=LAST_YEAR, has_pod=False)
    step = next_action(Stage.TRAIN, [unborn], 1, 3, NOW)
    assert isinstance(step, Wait)
    assert step.until == NOW + timedelta(minutes=1)


def test_a_stage_never_runs_twice_at_a_time() -> None:
    running = Attempt(Stage.TRAIN, 1, "a", AttemptState.ACTIVE)
    assert isinstance(next_action(Stage.TRAIN, [running], 5, 3, NOW), Wait)


def test_attempts_end_while_their_number_fits_into_a_name() -> None:
    assert next_action(Stage.TRAIN, [], MAX_ATTEMPTS - 1, 3, NOW) == StartAttempt(MAX_ATTEMPTS)
    assert isinstance(next_action(Stage.TRAIN, [], MAX_ATTEMPTS, 3, NOW), GiveUp)
