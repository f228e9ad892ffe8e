"""Where a result is evaluated, and what it would replace."""

from datetime import UTC, datetime
from typing import Any

import pytest
from finetune_api.artifact import Incumbent
from finetune_api.finetunejob import Serving
from finetune_api.jobstatus import EvaluationServer
from finetune_api.references import SecretRef
from finetune_api.stage import Stage
from finetune_operator.job.evaluation import (
    choose_evaluation_server,
    find_incumbent,
    find_job_under_evaluation,
    find_recorded_incumbent,
    find_recorded_server,
)
from finetune_operator.job.plan_builder import PlanBuilder
from finetune_operator.manifests.stages import build_stage_job
from finetune_operator.settings import Settings
from finetune_operator.state.child_jobs import Attempt, AttemptState, view_attempt
from finetune_operator.state.views import JobView, ServerView, view_job, view_server

ARTIFACT = {"uri": "pvc://out/shop/adapter/1", "digest": f"sha256:{'a' * 64}", "bytes": 1}


def job(name: str = "shop", status: Any = None, **spec: Any) -> JobView:
    least = {
        "model": {"uri": "pvc://models/base"},
        "dataset": {"train": {"uri": "pvc://data/x"}},
        "method": {"sft": {}},
        "adapter": {"lora": {}},
        "serving": {"modelName": name, "server": "shared"},
    }
    metadata = {"name": name, "namespace": "team", "uid": name, "generation": 1}
    return view_job({"metadata": metadata, "spec": least | spec, "status": {"artifact": ARTIFACT} | (status or {})})


def choose(
    spec: Any = None, status: Any = None, attempt: int = 1, *, is_busy: bool = False, made: Any = None, **of_job: Any
) -> Any:
    """Return where a job is evaluated by the spec and the status of its server."""
    metadata = {"name": "shared", "namespace": "team", "uid": "s", "generation": 1}
    server = {
        "metadata": metadata,
        "spec": {"model": {"uri": "pvc://models/base"}} | (spec or {}),
        "status": {"readyReplicas": 1} | (status or {}),
    }
    builder = PlanBuilder(job(status=made, **of_job), datetime(2026, 1, 1, tzinfo=UTC))
    return choose_evaluation_server(builder, view_server(server), attempt, is_busy=is_busy)


def test_a_server_that_is_ready_evaluates_an_adapter() -> None:
    assert choose() == EvaluationServer(name="shared")


@pytest.mark.parametrize(
    "world",
    [
        {"attempt": 2},
        {"is_busy": True},
        {"status": {"readyReplicas": 0}},
        {"spec": {"limits": {"maxTokens": 8}}},
        {
            "spec": {"lora": {"maxAdapters": 1}},
            "status": {"readyReplicas": 1, "rollouts": [{"name": "a", "stable": "b"}]},
        },
        {"spec": {"auth": {"secretRef": {"name": "keys"}}}},
        {"spec": {"auth": {"secretRef": {"name": "keys"}, "keys": [{"name": "web", "requestsPerMinute": 6}]}}},
        {"spec": {"auth": {"secretRef": {"name": "keys"}, "keys": [{"name": "web", "models": ["shop"]}]}}},
        {"serving": {"modelName": "shop", "template": {}}},
        {"adapter": {"full": {}}, "made": {"artifact": ARTIFACT | {"kind": "Model"}}},
    ],
)
def test_an_evaluation_that_the_server_cannot_take_on_has_a_pod_of_its_own(world: dict[str, Any]) -> None:
    assert choose(**world) is None


def test_an_evaluation_asks_with_a_key_that_may_ask_for_everything() -> None:
    keys = [{"name": "web", "models": ["shop"]}, {"name": "evaluation"}]
    evaluator = choose({"auth": {"secretRef": {"name": "keys"}, "keys": keys}})
    assert evaluator == EvaluationServer(name="shared", secret_ref=SecretRef(name="keys"), key="evaluation")


def test_one_result_at_a_time_is_hosted_until_it_is_evaluated() -> None:
    def ended(kind: str) -> dict[str, Any]:
        return {
            "evaluationServer": {"name": "shared"},
            "conditions": [
                {"type": kind, "status": "True", "reason": "GatesFailed", "lastTransitionTime": "2026-01-01T11:00:00Z"}
            ],
        }

    chosen = {"evaluationServer": {"name": "shared"}}
    jobs = [job("b", chosen), job("a", ended("Failed")), job("c", chosen), job("d", ended("Evaluated")), job("e")]
    evaluator = find_job_under_evaluation("shared", jobs)
    assert evaluator
    assert evaluator.name == "b"
    assert find_job_under_evaluation("other", jobs) is None


@pytest.mark.parametrize(
    "server",
    [
        None,
        EvaluationServer(name="shared"),
        EvaluationServer(name="shared", secret_ref=SecretRef(name="keys"), key="web"),
    ],
)
def test_an_evaluation_says_which_server_it_asks(server: EvaluationServer | None) -> None:
    settings = Settings.model_validate({"images": {"trainer": "trainer:1", "serving": "serving:1"}})
    made = {"evaluationServer": server.to_dict()} if server else None
    first = view_attempt(build_stage_job(job(), Stage.EVALUATE, 1, settings), [])
    last = view_attempt(build_stage_job(job(status=made), Stage.EVALUATE, 2, settings), [])
    assert first
    assert last
    other = EvaluationServer(name="other")
    assert find_recorded_server(other, [last, first]) == server
    assert find_recorded_server(other, []) == other


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def evaluated_job(name: str, letter: str) -> JobView:
    metadata = {"name": name, "namespace": "team", "uid": name, "generation": 1}
    artifact = {"uri": f"pvc://out/{name}/adapter/1", "digest": digest(letter), "bytes": 1}
    return view_job({"metadata": metadata, "spec": {}, "status": {"artifact": artifact}})


def server_of(*models: dict[str, Any]) -> ServerView:
    metadata = {"name": "shared", "namespace": "team", "uid": "s", "generation": 1}
    return view_server({"metadata": metadata, "spec": {}, "status": {"models": list(models)}})


def served(name: str, by: str, letter: str, pods: int = 1, message: str = "") -> dict[str, Any]:
    return {"name": name, "job": by, "digest": digest(letter), "loadedPods": pods, "message": message}


SERVING = Serving(model_name="bot", server="shared")


@pytest.mark.parametrize(
    ("models", "found"),
    [
        ([], ""),
        ([served("bot", "old", "a")], "old"),
        ([served("bot", "old", "a", pods=0)], "old"),
        ([served("bot", "old", "a", message="one pod refuses it")], "old"),
        ([served("bot", "old", "a", pods=0, message="refused")], ""),
        ([served("other", "old", "a")], ""),
        ([served("bot", "old", "b")], ""),
        ([served("bot", "gone", "a")], ""),
    ],
)
def test_the_incumbent_is_what_the_server_hosts_under_the_name(models: list[dict[str, Any]], found: str) -> None:
    incumbent = find_incumbent(SERVING, server_of(*models), [evaluated_job("old", "a"), evaluated_job("other", "c")])
    assert incumbent.job == found
    assert (incumbent.artifact is None) is (not found)


def test_the_incumbent_is_empty_where_serving_or_the_server_is_missing() -> None:
    assert find_incumbent(None, server_of(served("bot", "old", "a")), [evaluated_job("old", "a")]) == Incumbent()
    assert find_incumbent(SERVING, None, [evaluated_job("old", "a")]) == Incumbent()


def test_the_incumbent_that_was_chosen_first_stays() -> None:
    first, second = Incumbent(job="first"), Incumbent(job="second")
    attempts = [
        Attempt(Stage.EVALUATE, number, f"e{number}", AttemptState.FAILED, incumbent=one)
        for number, one in ((2, second), (1, first))
    ]
    assert find_recorded_incumbent(None, []) is None
    assert find_recorded_incumbent(None, attempts) == first
    assert find_recorded_incumbent(Incumbent(), attempts) == Incumbent()
