"""Which results a shared server evaluates beside its own work."""

from datetime import UTC, datetime
from typing import Any

import pytest
from finetune_api.jobstatus import EvaluationServer
from finetune_api.references import SecretRef
from finetune_operator.draft import Draft
from finetune_operator.evaluating import choose_server, find_evaluated, recorded_server
from finetune_operator.manifests.stages import build_stage_job
from finetune_operator.observe import Stage, view_attempt
from finetune_operator.settings import Settings
from finetune_operator.views import JobView, view_job, view_server

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
    draft = Draft(job(status=made, **of_job), datetime(2026, 1, 1, tzinfo=UTC))
    return choose_server(draft, view_server(server), attempt, is_busy=is_busy)


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
    found = choose({"auth": {"secretRef": {"name": "keys"}, "keys": keys}})
    assert found == EvaluationServer(name="shared", secret_ref=SecretRef(name="keys"), key="evaluation")


def test_one_result_at_a_time_is_hosted_until_it_is_judged() -> None:
    def over(kind: str) -> dict[str, Any]:
        return {
            "evaluationServer": {"name": "shared"},
            "conditions": [
                {"type": kind, "status": "True", "reason": "GatesFailed", "lastTransitionTime": "2026-01-01T11:00:00Z"}
            ],
        }

    asked = {"evaluationServer": {"name": "shared"}}
    jobs = [job("b", asked), job("a", over("Failed")), job("c", asked), job("d", over("Evaluated")), job("e")]
    found = find_evaluated("shared", jobs)
    assert found
    assert found.name == "b"
    assert find_evaluated("other", jobs) is None


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
    assert recorded_server(other, [last, first]) == server
    assert recorded_server(other, []) == other
