"""How one version of a model name replaces another."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import FineTuneJobStatus
from finetune_api.rollout import Canary, CanaryStep, RolloutStatus, Tally
from finetune_operator.server.rollouts import VersionTraffic, advance_rollout, assign_weights, check_canary
from finetune_operator.state.views import JobView, view_job
from hypothesis import given
from hypothesis import strategies as st
from unit.objects import NOW, evaluated_job

START = datetime(2026, 1, 1, tzinfo=UTC)
CANARY = {"canary": {"steps": [{"weight": 10, "seconds": 60}, {"weight": 50, "seconds": 60}]}}


def job(name: str, rollout: dict[str, Any] | None = None) -> JobView:
    serving = {"modelName": "bot", "server": "server"} | ({"rollout": rollout} if rollout else {})
    spec = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "pvc://models/base"},
            "dataset": {"train": {"uri": "pvc://data/x"}},
            "method": {"sft": {}},
            "adapter": {"lora": {}},
            "serving": serving,
        }
    )
    return JobView(name, "team", name, 1, spec, "", FineTuneJobStatus())


FIRST, SECOND, CAREFUL = job("first"), job("second"), job("careful", CANARY)


class Name:
    """One model name whose rollout is followed."""

    def __init__(self) -> None:
        self.state: RolloutStatus | None = None
        self.traffic: dict[str, VersionTraffic] = {}
        self.seconds = 0

    def go(self, *versions: JobView, after: int = 0, pin: str | None = None) -> list[tuple[str, int]]:
        """Let time pass, reconcile once, and return the weights."""
        self.seconds += after
        now = START + timedelta(seconds=self.seconds)
        self.state = advance_rollout("bot", versions, self.state, self.traffic, 2, now, is_pinned=pin is not None)
        return [(version.name, weight) for version, weight in assign_weights(self.state, versions, pin)]


def test_a_new_version_is_served_at_once_and_the_previous_one_stays_loaded() -> None:
    name = Name()
    assert name.go(FIRST) == [("first", 100)]
    assert name.go(FIRST, SECOND) == [("second", 100), ("first", 0)]
    third = job("third")
    assert name.go(FIRST, SECOND, third) == [("third", 100), ("second", 0)]


def test_a_canary_grows_from_when_all_pods_have_it() -> None:
    name = Name()
    name.go(FIRST)
    assert name.go(FIRST, CAREFUL) == [("careful", 10), ("first", 90)]
    name.traffic = {"careful": VersionTraffic(1)}
    assert name.go(FIRST, CAREFUL, after=1000) == [("careful", 10), ("first", 90)]
    name.traffic = {"careful": VersionTraffic(2)}
    assert name.go(FIRST, CAREFUL) == [("careful", 10), ("first", 90)]
    assert name.go(FIRST, CAREFUL, after=59) == [("careful", 10), ("first", 90)]
    assert name.go(FIRST, CAREFUL, after=1) == [("careful", 50), ("first", 50)]
    assert name.go(FIRST, CAREFUL, after=60) == [("careful", 100), ("first", 0)]
    assert name.go(FIRST, CAREFUL, after=9999) == [("careful", 100), ("first", 0)]


def test_a_canary_that_fails_is_rolled_back_and_not_retried() -> None:
    name = Name()
    name.go(FIRST)
    name.traffic = {
        "careful": VersionTraffic(2, Tally(requests=500, errors=400)),
        "first": VersionTraffic(2, Tally(requests=900)),
    }
    name.go(FIRST, CAREFUL)
    name.go(FIRST, CAREFUL)
    assert name.go(FIRST, CAREFUL, after=10) == [("careful", 10), ("first", 90)]
    name.traffic["careful"] = VersionTraffic(2, Tally(requests=520, errors=410))
    assert name.go(FIRST, CAREFUL, after=10) == [("first", 100)]
    assert name.state
    assert [version.message for version in name.state.aborted] == [
        "50.0% of the canary's 20 requests failed, 0.0% of the stable version's"
    ]
    assert name.go(FIRST, CAREFUL, after=9999) == [("first", 100)]
    assert name.go(FIRST, CAREFUL, SECOND) == [("second", 100), ("first", 0)]


def test_a_pin_keeps_a_version_until_it_is_removed() -> None:
    name = Name()
    name.go(FIRST)
    name.go(FIRST, SECOND)
    assert name.go(FIRST, SECOND, pin="first") == [("first", 100), ("second", 0)]
    third = job("third")
    assert name.go(FIRST, SECOND, third, pin="first") == [("first", 100), ("second", 0)]
    assert name.go(FIRST, SECOND, third) == [("third", 100), ("second", 0)]


def test_a_pin_to_an_unknown_job_does_not_change_the_weights() -> None:
    name = Name()
    assert name.go(FIRST, pin="none") == [("first", 100)]


def test_when_the_stable_version_is_deleted_the_previous_one_is_served() -> None:
    name = Name()
    name.go(FIRST)
    name.go(FIRST, SECOND)
    assert name.go(FIRST) == [("first", 100)]
    assert name.go(FIRST, after=10) == [("first", 100)]


def test_slow_and_failing_canaries_are_recognized() -> None:
    canary = Canary()
    usual = Tally(requests=100, errors=5, seconds=100)
    assert check_canary(canary, Tally(requests=19, errors=19), usual) == ""
    assert check_canary(canary, Tally(requests=20, errors=2, seconds=20), usual) == ""
    assert "15.0%" in check_canary(canary, Tally(requests=20, errors=3, seconds=20), usual)
    assert "1.60 s" in check_canary(canary, Tally(requests=20, errors=0, seconds=32), usual)
    assert check_canary(canary, Tally(requests=20, errors=0, seconds=32), Tally(requests=5, seconds=1)) == ""


_CHOICES = [FIRST, SECOND, CAREFUL, job("careful-too", CANARY), job("last")]


@given(st.lists(st.tuples(st.sets(st.sampled_from(range(5)), min_size=1), st.integers(0, 100), st.booleans())))
def test_after_any_events_all_requests_have_an_existing_version(
    events: Sequence[tuple[set[int], int, bool]],
) -> None:
    name = Name()
    for existing, after, are_loaded in events:
        versions = [_CHOICES[index] for index in sorted(existing)]
        name.traffic = {
            version.name: VersionTraffic(2 * are_loaded, Tally(requests=after * 10, errors=after))
            for version in versions
        }
        weights = name.go(*versions, after=after)
        assert sum(weight for _, weight in weights) == 100
        assert {name for name, _ in weights} <= {version.name for version in versions}
        assert len({name for name, _ in weights}) == len(weights) <= 2


ONE_STEP = Canary(steps=[CanaryStep(weight=10)])


def test_a_step_beyond_its_last_ends_the_canary() -> None:
    newer = evaluated_job("second", "bot")
    newer["spec"]["serving"]["rollout"] = {"canary": ONE_STEP.to_dict()}
    first, second = view_job(evaluated_job("first", "bot")), view_job(newer)
    before = RolloutStatus(name="bot", stable="first", candidate="second", step=9, step_time=NOW - timedelta(days=1))
    state = advance_rollout("bot", [first, second], before, {"second": VersionTraffic(1)}, 1, NOW, is_pinned=False)
    assert (state.stable, state.candidate) == ("second", None)
