"""Generates worlds: an object with its children, pods and their reports, valid, invalid and absurd.

A world has the format of an observed golden case, so that each problem can become a golden case.
"""

import json
from copy import deepcopy
from typing import Any

from finetune_api.contract.exit_codes import ExitCode
from finetune_api.contract.reports import StageReport
from finetune_api.contract.routes import LoadedReport
from finetune_api.schema import structural_schema
from fuzz.hostile import TEXTS
from fuzz.mutations import SPECS, TIMES, Mutation, list_changes, list_mutations
from fuzz.schemas import Schema, list_choices, list_nodes, list_samples, read_schema, set_at
from golden.cases import GOLDEN
from hypothesis import strategies as st
from pydantic import ValidationError

World = dict[str, Any]

_WORLDS: list[World] = [GOLDEN.read_observed(case) for case in GOLDEN.list_names()]
JOB_WORLDS = [world for world in _WORLDS if "job" in world]
SERVER_WORLDS = [world for world in _WORLDS if "job" not in world]
REPORT = structural_schema(StageReport)
LOADED = structural_schema(LoadedReport)
_CHANGES = {
    schema["description"]: st.sampled_from(
        [(node.path, value) for node in list_nodes(schema) for _, value in list_changes(node.schema)]
    )
    for schema in (REPORT, LOADED)
}
_CONTROL = ("True", "False", "Unknown")
_STAGES = ("Prepare", "Train", "Evaluate", "Export")
_MUTATIONS: dict[tuple[str, str], st.SearchStrategy[Mutation]] = {
    (kind, part): st.sampled_from(list(list_mutations(kind, part))) for kind in SPECS for part in ("spec", "status")
}
_TEXTS = st.sampled_from(TEXTS)


@st.composite
def draw_valid(draw: st.DrawFn, schema: Schema) -> Any:
    """Draw a value that matches a schema; it may break rules between fields."""
    match schema.get("type"):
        case "object" if "properties" in schema:
            names = set(schema.get("required", []))
            for group in list_choices(schema):
                names.add(draw(st.sampled_from(group)))
            excluded = {name for group in list_choices(schema) for name in group}
            others = sorted(set(schema["properties"]) - names - excluded)
            names |= draw(st.sets(st.sampled_from(others), max_size=4)) if others else set()
            return {name: draw(draw_valid(schema["properties"][name])) for name in sorted(names)}
        case "object":
            return draw(
                st.dictionaries(st.sampled_from(["a", "b/c"]), draw_valid(schema["additionalProperties"]), max_size=2)
            )
        case "array":
            least = schema.get("minItems", 0)
            return draw(st.lists(draw_valid(schema["items"]), min_size=least, max_size=least + 2))
        case "string" if schema.get("format") == "date-time":
            return draw(st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z", "2027-01-01T00:00:00Z"]))
        case "integer" if "enum" not in schema:
            return draw(st.integers(schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)))
        case "number":
            least, most = schema.get("minimum", -1e300), schema.get("maximum", 1e300)
            return draw(st.floats(least, most, exclude_min=bool(schema.get("exclusiveMinimum"))))
    return draw(st.sampled_from(list_samples(schema)))


@st.composite
def draw_report(draw: st.DrawFn, schema: Schema) -> str:
    """Draw the answer of a pod: a report, a report with a mutation, or a hostile text."""
    if draw(st.booleans()):
        return draw(_TEXTS)
    report = draw(draw_valid(schema))
    if draw(st.booleans()):
        path, value = draw(_CHANGES[schema["description"]])
        report = set_at(report, path, value)
    return json.dumps(report)


@st.composite
def draw_child(draw: st.DrawFn, owner: str) -> dict[str, Any]:
    """Draw a Job that names the owner in its labels, and its pods: the API server could hold them, even if absurd."""
    stage = draw(st.sampled_from([*_STAGES, "Nonsense"]))
    number = draw(st.sampled_from(["1", "2", "3", "0", "-1", "x", "9" * 20]))
    labels = {"finetune.dev/job": owner, "finetune.dev/stage": stage, "finetune.dev/attempt": number}
    times = st.sampled_from([*TIMES.values(), "2026-01-01T11:00:00Z"])
    conditions = st.lists(
        st.builds(
            lambda kind, status, time, reason: {
                "type": kind,
                "status": status,
                "lastTransitionTime": time,
                "reason": reason,
            },
            st.sampled_from(["Complete", "Failed", "Suspended", "Foreign"]),
            st.sampled_from(_CONTROL),
            times,
            st.sampled_from(["PodFailurePolicy", "BackoffLimitExceeded", ""]),
        ),
        max_size=3,
    )
    status = draw(
        st.fixed_dictionaries({}, optional={"startTime": times, "completionTime": times, "conditions": conditions})
    )
    job: dict[str, Any] = {
        "metadata": {"name": f"{owner}-{stage.lower()}-{number}-abcdef", "labels": labels},
        "status": status,
    }
    if draw(st.booleans()):
        job["spec"] = {"parallelism": draw(st.integers(1, 3))}
    return {"job": job, "pods": draw(st.lists(draw_pod(), max_size=3))}


@st.composite
def draw_pod(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a pod of a Job."""
    times = st.sampled_from([*TIMES.values(), "2026-01-01T11:30:00Z"])
    terminated = st.fixed_dictionaries(
        {"exitCode": st.sampled_from([0, 1, 137, *map(int, ExitCode), -1, 2**31 - 1])},
        optional={
            "message": draw_report(REPORT),
            "reason": st.sampled_from(["OOMKilled", "Error"]),
            "finishedAt": times,
        },
    )
    waiting = st.fixed_dictionaries(
        {}, optional={"reason": st.sampled_from(["ImagePullBackOff", "a: b", ""]), "message": _TEXTS}
    )
    state: st.SearchStrategy[Any] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"terminated": terminated}),
        st.fixed_dictionaries({"waiting": waiting}),
        st.just({"running": {}}),
    )
    condition = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Ready", "PodScheduled", "DisruptionTarget", "Foreign"]),
            "status": st.sampled_from(_CONTROL),
        },
        optional={"reason": st.just("Unschedulable"), "message": _TEXTS},
    )
    status = st.fixed_dictionaries(
        {},
        optional={
            "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
            "podIP": st.sampled_from(["10.0.0.7", "fd00::7"]),
            "containerStatuses": st.lists(st.fixed_dictionaries({}, optional={"state": state}), max_size=2),
            "conditions": st.lists(condition, max_size=3),
        },
    )
    metadata = st.fixed_dictionaries(
        {"name": st.sampled_from(["pod-a", "pod-b"])},
        optional={
            "deletionTimestamp": times,
            "annotations": st.dictionaries(
                st.sampled_from(["batch.kubernetes.io/job-completion-index", "finetune.dev/routes"]),
                st.sampled_from(["0", "1", "x"]),
            ),
        },
    )
    return draw(st.fixed_dictionaries({"metadata": metadata}, optional={"status": status}))


@st.composite
def draw_object(draw: st.DrawFn, kind: str, base: dict[str, Any]) -> dict[str, Any]:
    """Draw an object with a new spec or status, and up to three mutations of both."""
    result = deepcopy(base)
    for part in ("spec", "status"):
        if draw(st.integers(0, 3)) == 0:
            result[part] = draw(draw_valid(read_schema(kind, part)))
    for _ in range(draw(st.integers(0, 3))):
        part = draw(st.sampled_from(["spec", "status"]))
        result[part] = draw(_MUTATIONS[kind, part]).apply(result.get(part) or {})
    if draw(st.integers(0, 19)) == 0:
        result.pop(draw(st.sampled_from(["spec", "status"])), None)
    result["metadata"]["generation"] = draw(st.integers(1, 3))
    return result


@st.composite
def draw_job_world(draw: st.DrawFn) -> World:
    """Draw a FineTuneJob with its parent, server and children."""
    world = deepcopy(draw(st.sampled_from(JOB_WORLDS)))
    world["job"] = draw(draw_object("FineTuneJob", world["job"]))
    for name, kind in (("parent", "FineTuneJob"), ("server", "ModelServer")):
        if world.get(name) and draw(st.booleans()):
            world[name] = draw(draw_object(kind, world[name]))
    if draw(st.booleans()):
        added = draw(st.lists(draw_child(world["job"]["metadata"]["name"]), max_size=3))
        world["children"] = [*world.get("children", []), *added]
    for flag in ("controlsServer", "serverIsBusy", "hasDefaultClaim"):
        world[flag] = draw(st.booleans())
    return world


@st.composite
def draw_server_world(draw: st.DrawFn) -> World:
    """Draw a ModelServer with its jobs, its pods and their answers."""
    world = deepcopy(draw(st.sampled_from(SERVER_WORLDS)))
    world["server"] = draw(draw_object("ModelServer", world["server"]))
    world["jobs"] = [draw(draw_object("FineTuneJob", job)) for job in world.get("jobs", [])]
    for pod in [*world.get("pods", []), *({"pod": draw(draw_pod())} for _ in range(draw(st.integers(0, 2))))]:
        if draw(st.booleans()):
            pod["loaded"] = read_loaded(draw(draw_report(LOADED)))
    return world


def read_loaded(text: str) -> Any:
    """Return the loaded report in a pod's answer; None where it is invalid."""
    try:
        return LoadedReport.model_validate_json(text).to_dict()
    except ValidationError:
        return None
