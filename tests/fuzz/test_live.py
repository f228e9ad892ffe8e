"""Mutations of live objects are refused with their field, or accepted, reported and completely reverted."""

import json
from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from api.conftest import Operator
from api.player import Player, succeed
from cluster.control_plane import Cluster
from fuzz.conftest import Budget
from fuzz.live import Api, Stage, is_named
from fuzz.mutations import Mutation, build_base, list_mutations
from fuzz.schemas import list_changeable, list_choices, read_schema, with_node
from waiting import wait_for


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[Api]:
    with Api(cluster) as connected:
        yield connected


def choose(budget: Budget, share: float, kind: str, part: str = "spec") -> list[Mutation]:
    """Return a random sample of the mutations: a share of the run's budget, by its seed."""
    every = [mutation for mutation in list_mutations(kind, part) if budget.only in mutation.label]
    return Random(budget.seed).sample(every, min(len(every), round(budget.transitions * share)))


def names_of(mutation: Mutation) -> set[str]:
    """Return names of which a refusal must contain at least one: the field's and, for a union, its branches'."""
    branches = {name for group in list_choices(mutation.node.schema) for name in group}
    inner = set(mutation.value) if isinstance(mutation.value, dict) else set()
    # The refusal of a change of an immutable field names the group of fields.
    path = mutation.node.path
    above = [".".join(path[:end]) for end in range(1, len(path) + 1)]
    fixed = {f"spec.{name}: Invalid value: only" for name in above} | {f"{path[0]} cannot be changed"}
    return {mutation.node.name} | fixed | branches | inner & {"noSuchField"}


def check_answer(stage: Stage, budget: Budget, mutation: Mutation, code: int, answer: dict[str, Any]) -> bool:
    """Return whether a mutation was accepted; record a problem for a refusal that does not name the field."""
    budget.count("transitions")
    if code in (200, 201):
        budget.count("accepted")
        return True
    budget.count("refused")
    message = str(answer.get("message", ""))
    if code not in (400, 422) or not is_named(message, names_of(mutation)):
        stage.problems.append(f"{mutation.label}: answered {code} without its field: {message[:500]}")
    return False


def test_a_mutated_job_is_refused_or_reported(stage: Stage, budget: Budget) -> None:
    accepted: dict[str, Mutation] = {}
    for number, mutation in enumerate(choose(budget, 0.4, "FineTuneJob")):
        name = f"job-{number}"
        stage.labels[name] = mutation.label
        spec = mutation.apply(build_base(mutation.kind, mutation.node.path))
        if check_answer(stage, budget, mutation, *stage.create("FineTuneJob", name, spec)):
            accepted[name] = mutation
    stage.await_observation("FineTuneJob", accepted)
    stage.check_statuses("FineTuneJob")
    recreate(stage, budget, accepted)
    stage.check()


def recreate(stage: Stage, budget: Budget, accepted: dict[str, Mutation]) -> None:
    """Recreate the jobs without their mutations: each then has the same state as a job that never had one."""
    for name, mutation in accepted.items():
        stage.api.call("DELETE", f"{stage.path('FineTuneJob')}/{name}")
        spec = build_base(mutation.kind, mutation.node.path)
        assert stage.create("FineTuneJob", name, spec)[0] == 201
        assert stage.create("FineTuneJob", f"plain-{name}", spec)[0] == 201
    plain = [f"plain-{name}" for name in accepted]
    stage.await_observation("FineTuneJob", [*accepted, *plain])
    before = len(stage.problems)
    states = stage.states("FineTuneJob", plain)
    stage.await_states("FineTuneJob", {name: states[f"plain-{name}"] for name in accepted})
    budget.count("recovered", len(accepted) - (len(stage.problems) - before))


def test_a_live_job_changes_only_in_mutable_fields(stage: Stage, budget: Budget) -> None:
    chosen = choose(budget, 0.15, "FineTuneJob")
    changeable = list_changeable(read_schema("FineTuneJob", "spec"))
    live: dict[Any, dict[str, Any]] = {}
    for mutation in chosen:
        if mutation.node.path not in live:
            spec = build_base(mutation.kind, mutation.node.path)
            code, live[mutation.node.path] = stage.create("FineTuneJob", f"job-{len(live)}", spec)
            assert code == 201
    for mutation in chosen:
        manifest = live[mutation.node.path]
        code, answer = stage.replace(manifest, "spec", mutation.apply(manifest["spec"]), mutation.label)
        if not check_answer(stage, budget, mutation, code, answer):
            continue
        may_change = any(".".join(mutation.node.path).startswith(field) for field in changeable)
        if answer["spec"] != manifest["spec"] and not may_change:
            stage.problems.append(f"{mutation.label}: a live job accepted it")
        _, answer = stage.replace(manifest, "spec", manifest["spec"], mutation.label)
        budget.count("recovered", answer.get("spec") == manifest["spec"])
    stage.await_observation("FineTuneJob", [manifest["metadata"]["name"] for manifest in live.values()])
    stage.check()


def test_a_mutated_live_server_is_restored(stage: Stage, budget: Budget) -> None:
    by_node: defaultdict[Any, list[Mutation]] = defaultdict(list)
    for mutation in choose(budget, 0.25, "ModelServer"):
        by_node[mutation.node.path].append(mutation)
    live: dict[str, dict[str, Any]] = {}
    queues: dict[str, list[Mutation]] = {}
    for number, (path, mutations) in enumerate(by_node.items()):
        name = f"server-{number}"
        code, live[name] = stage.create("ModelServer", name, build_base("ModelServer", path))
        assert code == 201
        queues[name] = mutations
    stage.simulates_pods = True
    # Without this PriorityClass the unmutated server has no pods, but a mutation that drops the class has.
    priority = build_base("ModelServer", ("priorityClassName",))["priorityClassName"]
    stage.api.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": priority}, "value": 1})
    mutate_and_revert(stage, budget, "ModelServer", "spec", live, queues)
    stage.check()


@pytest.fixture
def stage(api: Api, operator: Operator, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A separate namespace for the test."""
    new_stage = Stage(api, operator, request.node.name.replace("_", "-")[5:60].strip("-"))
    yield new_stage
    new_stage.delete()


@pytest.fixture(scope="module")
def scene(api: Api, operator: Operator, cluster: Cluster) -> Iterator[Stage]:
    """Jobs that are served, completed, training and failed, and the server of the first."""
    stage = Stage(api, operator, "fuzz-scene")
    with Player(cluster) as player:
        player.play(stage.namespace, play_by_name)
        for name in SCENE:
            serving = {"serving": {"modelName": "bot", "template": {}}} if name == "job" else {}
            code, _ = stage.create("FineTuneJob", name, build_base("FineTuneJob", ("retries",)) | serving)
            assert code == 201
        wait_for(lambda: all(map(is_settled, stage.list("FineTuneJob").values())), "the scene", 90)
        yield stage
    stage.delete()


SCENE = ("job", *(f"{what}-{number}" for what in ("done", "train", "fail") for number in range(3)))
"""The simulated server answers for a job named `job`."""


def play_by_name(pod: dict[str, Any]) -> tuple[int, str] | None:
    """Return the result of a pod by the name of its job."""
    labels = pod["metadata"]["labels"]
    if labels["finetune.dev/job"].startswith("fail"):
        return 65, json.dumps({"outcome": "Failed", "reason": "DatasetInvalid", "message": "line 3: no JSON"})
    if labels["finetune.dev/job"].startswith("train") and labels["finetune.dev/stage"] == "Train":
        return None
    return succeed(pod)


def is_settled(job: dict[str, Any]) -> bool:
    """Return whether a job of the scene has the stage of its name."""
    status = job.get("status", {})
    stages = {"job": "Complete", "done": "Complete", "fail": "Failed", "train": "Train"}
    return bool(
        status.get("stage") == stages[job["metadata"]["name"].partition("-")[0]]
        and (status["stage"] != "Train" or "progress" in status)
    )


def test_a_foreign_status_is_corrected(scene: Stage, budget: Budget) -> None:
    for kind, share in (("FineTuneJob", 0.13), ("ModelServer", 0.02)):
        live = scene.list(kind)
        queues: dict[str, list[Mutation]] = {name: [] for name in live}
        for number, mutation in enumerate(choose(budget, share, kind, "status")):
            queues[list(live)[number % len(live)]].append(mutation)
        mutate_and_revert(scene, budget, kind, "status", live, queues)
    scene.check()


def test_foreign_metadata_leaves_no_trace(scene: Stage, budget: Budget) -> None:
    owner = scene.api.call("GET", f"/api/v1/namespaces/{scene.namespace}/configmaps/kube-root-ca.crt")[1]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "controller": True}
    changes = {**METADATA, "another owner": {"ownerReferences": [reference | {"uid": owner["metadata"]["uid"]}]}}
    for kind in ("FineTuneJob", "ModelServer"):
        live = scene.list(kind)
        states = scene.await_rest(kind, live)
        for what, change in changes.items():
            for name, manifest in live.items():
                code, _ = scene.replace(
                    manifest, "metadata", manifest["metadata"] | change, f"{kind} {name} metadata: {what}"
                )
                assert code == 200
                budget.count("transitions")
                budget.count("accepted")
            scene.await_rest(kind, live)
            for name, manifest in live.items():
                scene.replace(manifest, "metadata", manifest["metadata"], f"{kind} {name} metadata: {what}")
            before = len(scene.problems)
            scene.await_states(kind, states)
            budget.count("recovered", len(live) - (len(scene.problems) - before))
            scene.read_log()
    scene.check()


METADATA: dict[str, dict[str, Any]] = {
    "our labels": {
        "labels": {f"finetune.dev/{key}": "other" for key in ("job", "server", "stage", "attempt", "owned")}
    },
    "our annotations": {"annotations": {"finetune.dev/applied": "x", "finetune.dev/routes": "\u001b[31m"}},
    "a large annotation": {"annotations": {"example.com/large": "x" * 200_000}},
    "a finalizer": {"finalizers": ["example.com/hold"]},
}


def mutate_and_revert(
    stage: Stage,
    budget: Budget,
    kind: str,
    part: str,
    live: dict[str, dict[str, Any]],
    queues: dict[str, list[Mutation]],
) -> None:
    """Apply the next mutation of each object's queue and revert it, until the queues are empty."""
    stage.await_observation(kind, live)
    states = stage.await_rest(kind, live)
    while any(queues.values()):
        changed = {}
        for name, queue in queues.items():
            if not queue:
                continue
            mutation = queue.pop()
            base = with_node(live[name].get(part) or {}, read_schema(kind, part), mutation.node.path)
            value = mutation.apply(base)
            if check_answer(stage, budget, mutation, *stage.replace(live[name], part, value, mutation.label)):
                changed[name] = states[name]
        stage.await_observation(kind, changed)
        stage.await_rest(kind, changed)
        stage.check_statuses(kind)
        for name in changed:
            code, _ = stage.replace(live[name], part, live[name][part], stage.labels[name])
            assert code == 200
        before = len(stage.problems)
        stage.await_observation(kind, changed)
        stage.await_states(kind, changed)
        budget.count("recovered", len(changed) - (len(stage.problems) - before))
        stage.read_log()
