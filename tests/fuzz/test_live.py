"""Every mutation of live objects is refused with its field, or accepted, told about and turned back without a trace."""

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
    """Return the mutations of this run: a share of what it may try, by its seed."""
    every = [one for one in list_mutations(kind, part) if budget.only in one.label]
    return Random(budget.seed).sample(every, min(len(every), round(budget.transitions * share)))


def names_of(mutation: Mutation) -> set[str]:
    """Return the names of which a refusal must hold one: the field's, and where it is a union its branches'."""
    branches = {name for group in list_choices(mutation.node.schema) for name in group}
    inner = set(mutation.value) if isinstance(mutation.value, dict) else set()
    # What may not change in a live object is named by the group of fields that it belongs to.
    path = mutation.node.path
    above = [".".join(path[:end]) for end in range(1, len(path) + 1)]
    fixed = {f"spec.{name}: Invalid value: only" for name in above} | {f"{path[0]} cannot be changed"}
    return {mutation.node.name} | fixed | branches | inner & {"noSuchField"}


def judge(stage: Stage, budget: Budget, mutation: Mutation, code: int, answer: dict[str, Any]) -> bool:
    """Tell whether a mutation was accepted; a refusal must name the field."""
    budget.count("transitions")
    if code in (200, 201):
        budget.count("accepted")
        return True
    budget.count("refused")
    message = str(answer.get("message", ""))
    if code not in (400, 422) or not is_named(message, names_of(mutation)):
        stage.problems.append(f"{mutation.label}: answered {code} without its field: {message[:500]}")
    return False


def test_a_job_with_a_mutation_is_refused_or_told_about(stage: Stage, budget: Budget) -> None:
    accepted: dict[str, Mutation] = {}
    for number, mutation in enumerate(choose(budget, 0.4, "FineTuneJob")):
        name = f"job-{number}"
        stage.labels[name] = mutation.label
        spec = mutation.apply(build_base(mutation.kind, mutation.node.path))
        if judge(stage, budget, mutation, *stage.create("FineTuneJob", name, spec)):
            accepted[name] = mutation
    stage.await_answers("FineTuneJob", accepted)
    stage.check_statuses("FineTuneJob")
    recreate(stage, budget, accepted)
    stage.check()


def recreate(stage: Stage, budget: Budget, accepted: dict[str, Mutation]) -> None:
    """Make the jobs anew without their mutations: each is then as one that was never there with it."""
    for name, mutation in accepted.items():
        stage.api.call("DELETE", f"{stage.path('FineTuneJob')}/{name}")
        spec = build_base(mutation.kind, mutation.node.path)
        assert stage.create("FineTuneJob", name, spec)[0] == 201
        assert stage.create("FineTuneJob", f"plain-{name}", spec)[0] == 201
    plain = [f"plain-{name}" for name in accepted]
    stage.await_answers("FineTuneJob", [*accepted, *plain])
    before = len(stage.problems)
    states = stage.states("FineTuneJob", plain)
    stage.await_states("FineTuneJob", {name: states[f"plain-{name}"] for name in accepted})
    budget.count("recovered", len(accepted) - (len(stage.problems) - before))


def test_a_live_job_changes_only_where_it_may(stage: Stage, budget: Budget) -> None:
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
        if not judge(stage, budget, mutation, code, answer):
            continue
        may_change = any(".".join(mutation.node.path).startswith(field) for field in changeable)
        if answer["spec"] != manifest["spec"] and not may_change:
            stage.problems.append(f"{mutation.label}: a live job took it")
        _, answer = stage.replace(manifest, "spec", manifest["spec"], mutation.label)
        budget.count("recovered", answer.get("spec") == manifest["spec"])
    stage.await_answers("FineTuneJob", [one["metadata"]["name"] for one in live.values()])
    stage.check()


def test_a_live_server_turns_back(stage: Stage, budget: Budget) -> None:
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
    stage.plays_pods = True
    # Without it the base has no pods, and would have had some after a mutation that needs none.
    priority = build_base("ModelServer", ("priorityClassName",))["priorityClassName"]
    stage.api.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": priority}, "value": 1})
    turn(stage, budget, "ModelServer", "spec", live, queues)
    stage.check()


@pytest.fixture
def stage(api: Api, operator: Operator, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A namespace of the test's own."""
    made = Stage(api, operator, request.node.name.replace("_", "-")[5:60].strip("-"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def scene(api: Api, operator: Operator, cluster: Cluster) -> Iterator[Stage]:
    """Jobs that serve, are done, train on and failed, and the server of the first."""
    stage = Stage(api, operator, "fuzz-scene")
    with Player(cluster) as player:
        player.play(stage.namespace, play_by_name)
        for name in SCENE:
            serving = {"serving": {"modelName": "bot", "template": {}}} if name == "job" else {}
            code, _ = stage.create("FineTuneJob", name, build_base("FineTuneJob", ("retries",)) | serving)
            assert code == 201
        wait_for(lambda: all(map(is_settled, stage.list("FineTuneJob").values())), "the scene", 90)
        yield stage
    stage.end()


SCENE = ("job", *(f"{what}-{number}" for what in ("done", "train", "fail") for number in range(3)))
"""The played server answers for a job of the name `job`."""


def play_by_name(pod: dict[str, Any]) -> tuple[int, str] | None:
    """Let the pods of a job do what its name says."""
    labels = pod["metadata"]["labels"]
    if labels["finetune.dev/job"].startswith("fail"):
        return 65, json.dumps({"outcome": "Failed", "reason": "DatasetInvalid", "message": "line 3: no JSON"})
    if labels["finetune.dev/job"].startswith("train") and labels["finetune.dev/stage"] == "Train":
        return None
    return succeed(pod)


def is_settled(job: dict[str, Any]) -> bool:
    """Tell whether a job of the scene is where its name says."""
    status = job.get("status", {})
    wanted = {"job": "Complete", "done": "Complete", "fail": "Failed", "train": "Train"}
    return bool(
        status.get("stage") == wanted[job["metadata"]["name"].partition("-")[0]]
        and (status["stage"] != "Train" or "progress" in status)
    )


def test_a_status_that_someone_else_wrote_turns_back(scene: Stage, budget: Budget) -> None:
    for kind, share in (("FineTuneJob", 0.13), ("ModelServer", 0.02)):
        live = scene.list(kind)
        queues: dict[str, list[Mutation]] = {name: [] for name in live}
        for number, mutation in enumerate(choose(budget, share, kind, "status")):
            queues[list(live)[number % len(live)]].append(mutation)
        turn(scene, budget, kind, "status", live, queues)
    scene.check()


def test_metadata_that_someone_else_wrote_turns_back(scene: Stage, budget: Budget) -> None:
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


def turn(
    stage: Stage,
    budget: Budget,
    kind: str,
    part: str,
    live: dict[str, dict[str, Any]],
    queues: dict[str, list[Mutation]],
) -> None:
    """Mutate each object by the next one of its queue and turn it back, until the queues are empty."""
    stage.await_answers(kind, live)
    states = stage.await_rest(kind, live)
    while any(queues.values()):
        changed = {}
        for name, queue in queues.items():
            if not queue:
                continue
            mutation = queue.pop()
            base = with_node(live[name].get(part) or {}, read_schema(kind, part), mutation.node.path)
            value = mutation.apply(base)
            if judge(stage, budget, mutation, *stage.replace(live[name], part, value, mutation.label)):
                changed[name] = states[name]
        stage.await_answers(kind, changed)
        stage.await_rest(kind, changed)
        stage.check_statuses(kind)
        for name in changed:
            code, _ = stage.replace(live[name], part, live[name][part], stage.labels[name])
            assert code == 200
        before = len(stage.problems)
        stage.await_answers(kind, changed)
        stage.await_states(kind, changed)
        budget.count("recovered", len(changed) - (len(stage.problems) - before))
        stage.read_log()
