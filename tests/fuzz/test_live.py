"""Every mutation of live objects is refused with its field, or accepted, told about and turned back without a trace."""

from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from api.conftest import Operator
from cluster.control_plane import Cluster
from finetune_api.finetunejob import CHANGEABLE
from fuzz.conftest import Budget
from fuzz.live import Api, Stage, is_named
from fuzz.mutations import Mutation, build_base, list_mutations
from fuzz.schemas import list_choices
from pydantic.alias_generators import to_camel


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Api]:
    with Api(cluster) as connected:
        yield connected


def choose(budget: Budget, share: float, kind: str, part: str = "spec") -> list[Mutation]:
    """Return the mutations of this run: a share of what it may try, by its seed."""
    every = [one for one in list_mutations(kind, part) if budget.only in one.label]
    return Random(budget.seed).sample(every, min(len(every), round(budget.transitions * share)))  # noqa: S311


def names_of(mutation: Mutation) -> set[str]:
    """Return the names of which a refusal must hold one: the field's, and where it is a union its branches'."""
    branches = {name for group in list_choices(mutation.node.schema) for name in group}
    inner = set(mutation.value) if isinstance(mutation.value, dict) else set()
    return {mutation.node.name} | branches | inner & {"noSuchField"}


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


def test_a_job_with_a_mutation_is_refused_or_told_about(api: Api, operator: Operator, budget: Budget) -> None:
    stage = Stage(api, operator, "fuzz-jobs")
    accepted: dict[str, Mutation] = {}
    for number, mutation in enumerate(choose(budget, 0.4, "FineTuneJob")):
        name = f"job-{number}"
        stage.labels[name] = mutation.label
        spec = mutation.apply(build_base(mutation.kind, mutation.node.path))
        if judge(stage, budget, mutation, *stage.create("FineTuneJob", name, spec)):
            accepted[name] = mutation
    stage.await_answers("FineTuneJob", accepted)
    recreate(stage, budget, accepted)
    stage.end()


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


def test_a_live_job_changes_in_nothing_but_what_may_be_changed(api: Api, operator: Operator, budget: Budget) -> None:
    stage = Stage(api, operator, "fuzz-live-jobs")
    chosen = choose(budget, 0.15, "FineTuneJob")
    live: dict[Any, dict[str, Any]] = {}
    for mutation in chosen:
        if mutation.node.path not in live:
            spec = build_base(mutation.kind, mutation.node.path)
            code, live[mutation.node.path] = stage.create("FineTuneJob", f"job-{len(live)}", spec)
            assert code == 201
    for mutation in chosen:
        manifest = live[mutation.node.path]
        code, answer = stage.replace(manifest, "spec", mutation.apply(manifest["spec"]), mutation.label)
        if not judge(stage, budget, mutation, code, answer) or answer["spec"] == manifest["spec"]:
            continue
        if mutation.node.path[0] not in map(to_camel, CHANGEABLE):
            stage.problems.append(f"{mutation.label}: a live job took it")
        stage.replace(manifest, "spec", manifest["spec"], mutation.label)
    stage.await_answers("FineTuneJob", [one["metadata"]["name"] for one in live.values()])
    stage.end()


def test_a_live_server_turns_back(api: Api, operator: Operator, budget: Budget) -> None:
    stage = Stage(api, operator, "fuzz-servers")
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
    turn(stage, budget, "ModelServer", "spec", live, queues)
    stage.end()


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
            value = mutation.apply(live[name].get(part) or {})
            if judge(stage, budget, mutation, *stage.replace(live[name], part, value, mutation.label)):
                changed[name] = states[name]
        stage.await_answers(kind, changed)
        stage.await_rest(kind, changed)
        for name in changed:
            code, _ = stage.replace(live[name], part, live[name][part], stage.labels[name])
            assert code == 200
        before = len(stage.problems)
        stage.await_answers(kind, changed)
        stage.await_states(kind, changed)
        budget.count("recovered", len(changed) - (len(stage.problems) - before))
        stage.read_log()
