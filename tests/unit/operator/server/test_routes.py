"""Which routes a server gets, and the status of a version that some pods have loaded."""

from typing import Any

import pytest
from finetune_api.contract.routes import LoadedModel, LoadedReport, Route
from finetune_api.modelserver import Model, ModelServerSpec, ServedModel
from finetune_operator.server.routes import (
    advance_rollouts,
    build_routes,
    describe_served,
    find_newer_job,
    pin_chat_template,
)
from finetune_operator.state.child_jobs import ServerPod
from finetune_operator.state.views import view_job, view_server
from unit.objects import NOW, evaluated_job, job
from unit.pod_reports import DIGEST

DATASET = {"trainExamples": 1, "heldoutExamples": 1, "trainTokens": 1, "longestExampleTokens": 1, "steps": 1} | {
    "digest": DIGEST
}
TEMPLATE, OTHER_TEMPLATE = f"sha256:{'c' * 64}", f"sha256:{'d' * 64}"
ROUTE = Route(model_name="bot", job="job", uri="pvc://out/job/adapter/1", digest=DIGEST, bytes=1, weight=100)


def pod(weight: int | None, *, state: str = "Loaded", ready: bool = True) -> ServerPod:
    """Return a pod that reports this weight of the version."""
    said = LoadedModel.model_validate(
        {"modelName": "bot", "job": "job", "digest": DIGEST, "state": state, "weight": weight}
    )
    return ServerPod("a", ready=ready, address=None, routes_annotation=None, loaded=LoadedReport(models=[said]))


NOT_YET_OBSERVED = ServerPod("b", ready=True, address=None, routes_annotation=None, not_yet_observed=True)
HALF = ServedModel(name="bot", job="job", digest=DIGEST, weight=50, loaded_pods=2)


@pytest.mark.parametrize(
    ("pods", "before", "weight", "loaded_pods"),
    [
        ([pod(100), pod(100)], [], 100, 2),
        ([pod(50), pod(100)], [], 50, 2),
        # A pod that is not ready, or has not loaded the version, does not count.
        ([pod(50, ready=False), pod(100)], [], 100, 1),
        ([pod(50, state="Loading"), pod(100)], [], 100, 1),
        # An older server does not report weights.
        ([pod(None)], [HALF], 100, 1),
        # A restarted operator uses the status for a pod that it has not heard of yet.
        ([pod(100), NOT_YET_OBSERVED], [HALF], 50, 2),
        ([NOT_YET_OBSERVED], [HALF], 50, 1),
        ([pod(100), NOT_YET_OBSERVED], [], 100, 1),
        ([], [HALF], 100, 0),
    ],
)
def test_the_weight_of_a_version_is_the_smallest_that_a_pod_reports(
    pods: list[ServerPod], before: list[ServedModel], weight: int, loaded_pods: int
) -> None:
    served = describe_served(ROUTE, pods, before)
    assert (served.weight, served.loaded_pods) == (weight, loaded_pods)


def test_a_version_that_a_pod_reports_twice_counts_once() -> None:
    route = Route(model_name="bot", job="job", uri="pvc://out/job/adapter/1", digest=DIGEST, bytes=1)
    said = LoadedModel(model_name="bot", job="job", digest=DIGEST, state="Loaded")
    pod = ServerPod("a", ready=True, address="10.0.0.1", routes_annotation=None, loaded=LoadedReport(models=[said] * 3))
    assert describe_served(route, [pod], []).loaded_pods == 1


def test_a_server_with_two_versions_of_every_name_is_routed() -> None:
    jobs = [view_job(evaluated_job(f"{age}-{number}", f"bot-{number}")) for age in ("a", "b") for number in range(256)]
    spec = ModelServerSpec(model=Model(uri="pvc://models/base"), lora={"maxAdapters": 256})
    rollouts = advance_rollouts(spec, [], jobs, [], NOW)
    assert len(build_routes("shared", spec, rollouts, jobs).routes) == 512


def test_a_version_that_was_trained_with_thinking_off_is_served_so() -> None:
    jobs = []
    for name, thinking_off in (("off", True), ("on", False), ("kept", True)):
        manifest = evaluated_job(name, f"bot-{name}")
        manifest["status"]["dataset"] = DATASET | {"thinkingOff": thinking_off and name != "kept"}
        if name == "kept":
            model, artifact = {"uri": "pvc://models/base"}, manifest["status"]["artifact"]
            kept = {"job": "off", "model": model, "artifact": artifact, "parentAdapter": "Keep", "thinkingOff": True}
            manifest["status"]["warmStart"] = kept
        jobs.append(view_job(manifest))
    spec = ModelServerSpec(model=Model(uri="pvc://models/base"), lora={"maxAdapters": 3})
    routes = build_routes("shared", spec, advance_rollouts(spec, [], jobs, [], NOW), jobs).routes
    assert {route.job: route.thinking_off for route in routes} == {"off": True, "on": None, "kept": True}


@pytest.mark.parametrize(
    ("changes", "routed"),
    [
        ({}, TEMPLATE),
        # A whole model, and the model into which the parent's adapter was merged, have the template in their files.
        ({"artifact": {"kind": "Model"}}, None),
        ({"warmStart": {"parentAdapter": "Merge"}}, None),
        ({"warmStart": {"parentAdapter": "Train"}}, TEMPLATE),
        ({"dataset": {"chatTemplate": None}}, None),
    ],
)
def test_an_adapter_is_routed_with_the_chat_template_that_it_was_trained_with(
    changes: dict[str, Any], routed: str | None
) -> None:
    manifest = evaluated_job("job", "bot")
    manifest["spec"]["model"]["chatTemplate"] = "configmap://templates/chat.jinja"
    status = manifest["status"]
    status["dataset"] = DATASET | {"chatTemplate": TEMPLATE} | changes.get("dataset", {})
    status["artifact"] |= changes.get("artifact", {})
    if "warmStart" in changes:
        parent = {"job": "first", "model": manifest["spec"]["model"], "artifact": status["artifact"]}
        status["warmStart"] = parent | changes["warmStart"]
    spec = ModelServerSpec(model=Model(uri="pvc://models/base"))
    jobs = [view_job(manifest)]
    (route,) = build_routes("shared", spec, advance_rollouts(spec, [], jobs, [], NOW), jobs).routes
    assert route.chat_template == routed


@pytest.mark.parametrize(
    ("known", "trained", "started", "found"),
    [
        (None, None, None, None),
        (None, None, OTHER_TEMPLATE, OTHER_TEMPLATE),
        (None, TEMPLATE, OTHER_TEMPLATE, TEMPLATE),
        (TEMPLATE, OTHER_TEMPLATE, OTHER_TEMPLATE, TEMPLATE),
    ],
)
def test_the_chat_template_of_a_server_stays_the_same(
    known: str | None, trained: str | None, started: str | None, found: str | None
) -> None:
    model = {"uri": "pvc://models/base", "chatTemplate": "configmap://templates/chat.jinja"}
    metadata = {"name": "shared", "namespace": "team", "uid": "s", "generation": 1}
    status = {"chatTemplate": known} if known else {}
    server = view_server({"metadata": metadata, "spec": {"model": model}, "status": status})
    routes = [ROUTE.model_copy(update={"chat_template": trained})]
    report = LoadedReport(models=[], chat_template=started)
    pods = [ServerPod("a", ready=True, address=None, routes_annotation=None, loaded=report)]
    assert pin_chat_template(server, routes, pods) == found
    bare = view_server({"metadata": metadata, "spec": {"model": {"uri": "pvc://models/base"}}, "status": status})
    assert pin_chat_template(bare, routes, pods) is None


def test_only_a_job_that_passed_its_gates_later_is_newer() -> None:
    jobs = [view_job(evaluated_job(name, "bot")) for name in ("a", "b")]
    running = view_job(job("c", modelName="bot"))
    assert [find_newer_job(other, [*jobs, running]) for other in (*jobs, running)] == ["b", None, None]
    assert find_newer_job(view_job(evaluated_job("d", "other")), jobs) is None
