"""Statuses, children and pods as nobody should have written them: found by `make fuzz`, each was a fault once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from finetune_api.compute import Toleration
from finetune_api.conditions import ConditionType, Reason
from finetune_api.jobstatus import MOST_ATTEMPTS
from finetune_api.modelserver import Model, ModelServerSpec
from finetune_api.rollout import Canary, CanaryStep, RolloutStatus
from finetune_api.routes import LoadedModel, LoadedReport, Route
from finetune_operator.attempts import Begin, GiveUp, Wait, next_step
from finetune_operator.events import build_event
from finetune_operator.observe import Attempt, ServerPod, Stage, State, view_attempt
from finetune_operator.pods import parse_progress
from finetune_operator.reconcile import _refuse
from finetune_operator.rollouts import Traffic, advance
from finetune_operator.routing import advance_rollouts, build_routes, describe_served
from finetune_operator.status import Conditions, Event
from finetune_operator.views import view_job
from pydantic import ValidationError

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LAST_YEAR = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
CANARY = Canary(steps=[CanaryStep(weight=10)])


def job(name: str = "shop", status: dict[str, Any] | None = None, **serving: Any) -> dict[str, Any]:
    spec = {
        "model": {"uri": "pvc://models/base"},
        "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
        "method": {"sft": {}},
        "adapter": {"lora": {}},
    }
    return {
        "metadata": {"name": name, "namespace": "team", "uid": name, "generation": 1},
        "spec": spec | ({"serving": {"server": "shared"} | serving} if serving else {}),
        "status": status or {},
    }


def condition(kind: str, time: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"type": kind, "status": "True", "lastTransitionTime": time, "reason": "Succeeded"}


def proven(name: str, model_name: str) -> dict[str, Any]:
    artifact = {"uri": f"pvc://out/{name}/adapter/1", "digest": DIGEST, "bytes": 1}
    return job(name, {"artifact": artifact, "conditions": [condition("Evaluated")]}, modelName=model_name)


def test_a_condition_of_someone_else_is_left_out() -> None:
    before = view_job(job(status={"conditions": [condition("Foreign"), condition("Trained")]})).status.conditions
    conditions = Conditions.start(before, 1, NOW)
    conditions.set(ConditionType.READY, status=False, reason=Reason.TRAINING)
    assert [one.type for one in conditions.listed()] == ["Trained", "Ready"]


def test_what_cannot_be_read_of_a_status_costs_nothing_else() -> None:
    status = {
        "attempts": {"train": -1},
        "startTime": "0000-01-01T00:00:00Z",
        "stage": "Train",
        "conditions": [condition("Trained", "0000-01-01T00:00:00Z"), condition("DatasetReady"), "nonsense"],
    }
    read = view_job(job(status=status)).status
    assert (read.stage, read.start_time, read.attempts.train) == ("Train", None, 0)
    assert [one.type for one in read.conditions] == ["DatasetReady"]


def test_a_time_without_a_zone_is_in_utc() -> None:
    read = view_job(job(status={"startTime": "2026-01-01T12:00:00"})).status
    assert read.start_time == NOW


@pytest.mark.parametrize("time", ["0000-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "yesterday"])
def test_a_time_that_no_calendar_has_is_none(time: str) -> None:
    attempt = view_attempt({"metadata": {"name": "a-train-1-abcdef"}, "status": {"startTime": time}}, [])
    assert attempt is not None
    assert attempt.started is None


@pytest.mark.parametrize("name", ["a-train-99999-abcdef", "a-train-1", "a-sleep-1-abcdef", "a-train-x-abcdef", "a"])
def test_a_job_whose_name_is_none_of_ours_is_no_attempt(name: str) -> None:
    labels = {"finetune.dev/stage": "Train", "finetune.dev/attempt": "1"}
    assert view_attempt({"metadata": {"name": name, "labels": labels}}, []) is None


def test_an_end_in_the_future_delays_nothing() -> None:
    failed = Attempt(Stage.TRAIN, 1, "a", State.FAILED, finished=LAST_YEAR)
    step = next_step(Stage.TRAIN, [failed], 1, 3, NOW)
    assert isinstance(step, Wait)
    assert step.until == NOW + timedelta(seconds=10)
    unborn = Attempt(Stage.TRAIN, 1, "a", State.ACTIVE, started=LAST_YEAR, has_pod=False)
    step = next_step(Stage.TRAIN, [unborn], 1, 3, NOW)
    assert isinstance(step, Wait)
    assert step.until == NOW + timedelta(minutes=1)


def test_a_stage_never_runs_twice_at_a_time() -> None:
    running = Attempt(Stage.TRAIN, 1, "a", State.ACTIVE)
    assert isinstance(next_step(Stage.TRAIN, [running], 5, 3, NOW), Wait)


def test_attempts_end_while_their_number_fits_into_a_name() -> None:
    assert next_step(Stage.TRAIN, [], MOST_ATTEMPTS - 1, 3, NOW) == Begin(MOST_ATTEMPTS)
    assert isinstance(next_step(Stage.TRAIN, [], MOST_ATTEMPTS, 3, NOW), GiveUp)


def test_a_refusal_is_about_the_spec_as_it_is_now() -> None:
    manifest = job() | {"kind": "FineTuneJob"}
    manifest["metadata"]["generation"] = 3
    status, _ = _refuse(manifest, (Reason.CREATE_REFUSED, "Job shop-prepare-1: no"), NOW)
    assert status["observedGeneration"] == 3


@pytest.mark.parametrize("key", ["x" * 64, f"{'a' * 254}/x"])
def test_a_key_that_no_node_can_have_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="key"):
        Toleration(key=key)


def test_a_note_is_cut_by_bytes_and_printable() -> None:
    about = {"apiVersion": "v", "kind": "k", "metadata": {"name": "a", "namespace": "n", "uid": "u"}}
    note = build_event(about, Event("Normal", "R", "\u001b[31m" + "ä" * 1024), "one", NOW)["note"]
    assert note.isprintable()
    assert len(note.encode()) == 1023


def test_a_condition_holds_nothing_that_a_terminal_acts_upon() -> None:
    conditions = Conditions.start([], 1, NOW)
    conditions.set(ConditionType.READY, status=False, reason=Reason.UNSCHEDULABLE, message="0/1 nodes\u001b[2J\n")
    assert conditions.listed()[0].message == "0/1 nodes [2J "


def test_a_step_that_the_canary_does_not_have_ends_it() -> None:
    newer = proven("second", "bot")
    newer["spec"]["serving"]["rollout"] = {"canary": CANARY.to_dict()}
    first, second = view_job(proven("first", "bot")), view_job(newer)
    before = RolloutStatus(name="bot", stable="first", candidate="second", step=9, step_time=NOW - timedelta(days=1))
    state = advance("bot", [first, second], before, {"second": Traffic(1)}, 1, NOW, is_pinned=False)
    assert (state.stable, state.candidate) == ("second", None)


def test_what_a_pod_says_twice_counts_once() -> None:
    route = Route(model_name="bot", job="job", uri="pvc://out/job/adapter/1", digest=DIGEST, bytes=1)
    said = LoadedModel(model_name="bot", job="job", digest=DIGEST, state="Loaded")
    pod = ServerPod("a", ready=True, address="10.0.0.1", routes_annotation=None, loaded=LoadedReport(models=[said] * 3))
    assert describe_served(route, [pod], []).loaded_pods == 1


def test_a_server_with_two_versions_of_every_name_is_routed() -> None:
    jobs = [view_job(proven(f"{age}-{number}", f"bot-{number}")) for age in ("a", "b") for number in range(256)]
    spec = ModelServerSpec(model=Model(uri="pvc://models/base"), lora={"maxAdapters": 256})
    rollouts = advance_rollouts(spec, [], jobs, [], NOW)
    assert len(build_routes("shared", spec, rollouts, jobs).routes) == 512


@pytest.mark.parametrize(
    "text",
    [
        "finetune_train_step 1e400\nfinetune_train_steps 1e400\n",
        "finetune_train_step Inf\nfinetune_train_steps Inf\n",
        "finetune_train_step 1 1\nfinetune_train_steps 2 2\n",
        'finetune_train_step{a="' + "\\" * 100_000,
    ],
)
def test_metrics_that_are_none_are_no_progress(text: str) -> None:
    assert parse_progress(text) is None
