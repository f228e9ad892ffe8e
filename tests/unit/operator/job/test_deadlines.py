"""How the active time of a job is counted."""

from datetime import timedelta

from finetune_api.jobstatus import ActiveTime
from finetune_api.stage import Stage
from finetune_operator.job.deadlines import count_active_time
from finetune_operator.state.child_jobs import Attempt, AttemptState
from hypothesis import given
from hypothesis import strategies as st
from unit.objects import NOW


@given(st.lists(st.sampled_from(["run", "queue", "stop", "end"]), max_size=20), st.integers(1, 50))
def test_active_time_is_counted_once_and_only_while_a_stage_runs(steps: list[str], seconds: int) -> None:
    known, at, worked, running = ActiveTime(), NOW, 0, False
    for step in steps:
        attempt = Attempt(
            Stage.TRAIN,
            1,
            "t1",
            AttemptState.SUCCEEDED if step == "end" else AttemptState.ACTIVE,
            queue="gpus" if step == "queue" else None,
            is_terminating=step == "stop",
            finished=at if step == "end" else None,
        )
        # A second reconciliation at the same time makes no difference.
        known = count_active_time(count_active_time(known, [attempt], at), [attempt], at)
        running = step == "run"
        at += timedelta(seconds=seconds)
        worked += seconds if running else 0
    assert count_active_time(known, [], at) == ActiveTime(seconds=worked)


def test_an_attempt_that_ended_between_reconciliations_counts_until_its_end() -> None:
    ended = Attempt(Stage.TRAIN, 1, "t1", AttemptState.SUCCEEDED, finished=NOW + timedelta(seconds=30))
    active = count_active_time(ActiveTime(seconds=5, since=NOW), [ended], NOW + timedelta(hours=1))
    assert active == ActiveTime(seconds=35)
