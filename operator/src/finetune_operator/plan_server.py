"""Decides what a ModelServer needs: its children, what its pods should host, and its next status.

Pure. Which adapters it hosts follows from the FineTuneJobs that name it and passed their gates.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.meta import ROUTES_ANNOTATION
from finetune_api.modelserver import ModelServerSpec, ServedModel
from finetune_api.rollout import RolloutStatus, Tally
from finetune_api.routes import Route, Routes

from finetune_operator.evaluating import find_evaluated
from finetune_operator.kinds import Manifest
from finetune_operator.manifests.availability import (
    build_autoscaler,
    build_disruption_budget,
    build_network_policy,
)
from finetune_operator.manifests.names import job_file
from finetune_operator.manifests.server import (
    build_deployment,
    build_routes,
    build_service,
    digest_routes,
    endpoint_of,
)
from finetune_operator.observe import JobView, ServerPod, ServerView
from finetune_operator.rollouts import Traffic, advance, shares
from finetune_operator.settings import Settings
from finetune_operator.status import Conditions, Event, changed_conditions

LOADING_SECONDS = 2.0
"""How often the pods are asked while something is not loaded yet."""


@dataclass(frozen=True)
class SeenServer:
    """Everything in the cluster that bears on one ModelServer."""

    jobs: list[JobView]
    """The FineTuneJobs that name it or made it."""
    pods: list[ServerPod]
    conflict: str = ""
    """A child's name that is taken by an object of someone else."""
    has_autoscaler: bool = False
    """Whether it was scaled by its requests before."""


@dataclass(frozen=True)
class ServerPlan:
    """What to do about one ModelServer."""

    apply: tuple[Manifest, ...]
    status: Manifest
    events: tuple[Event, ...]
    again_after: float | None = None
    annotate: tuple[tuple[str, dict[str, str]], ...] = ()
    """Pods and annotations to give them, so that the kubelet refreshes their routes at once."""


def proven_at(job: JobView) -> datetime | None:
    """Return when the job's adapter passed its gates; None where it did not."""
    for condition in job.status.conditions:
        if condition.type == ConditionType.EVALUATED and condition.status == "True" and job.status.artifact:
            return condition.last_transition_time
    return None


def proven_by_name(jobs: list[JobView]) -> dict[str, list[JobView]]:
    """Return for each public model name its jobs, in the order in which they were proven."""
    proven = [job for job in jobs if proven_at(job)]
    proven.sort(key=lambda job: (proven_at(job) or datetime.min.replace(tzinfo=UTC), job.name))
    names: dict[str, list[JobView]] = {}
    for job in proven:
        if job.spec and job.spec.serving:
            names.setdefault(job.spec.serving.model_name, []).append(job)
    return dict(sorted(names.items()))


def advance_rollouts(server: ServerView, spec: ModelServerSpec, seen: SeenServer, now: datetime) -> list[RolloutStatus]:
    """Return where the rollout of each name stands now."""
    before = {one.name: one for one in server.status.rollouts}
    ready = [pod for pod in seen.pods if pod.ready]
    proven = proven_by_name(seen.jobs)
    # A name that is hosted keeps its place; the room that is left goes to those that were proven first.
    hosted = sorted(proven, key=lambda name: (name not in before, proven_at(proven[name][0]), name))
    return [
        advance(
            name, proven[name], before.get(name), _traffic(name, ready), len(ready), now, is_pinned=name in spec.pins
        )
        for name in sorted(hosted[: spec.lora.max_adapters])
    ]


def build_route_list(server: str, spec: ModelServerSpec, rollouts: list[RolloutStatus], jobs: list[JobView]) -> Routes:
    """Return what the server should host, and for whom."""
    proven = proven_by_name(jobs)
    routes = [
        _build_route(state.name, job, weight=weight)
        for state in rollouts
        for job, weight in shares(state, proven[state.name], spec.pins.get(state.name))
    ]
    evaluated = find_evaluated(server, jobs)
    if evaluated and evaluated.spec and evaluated.spec.serving:
        routes.append(_build_route(evaluated.spec.serving.model_name, evaluated, weight=0, is_hidden=True))
    return Routes(routes=[one for one in routes if one], keys=spec.auth.keys if spec.auth else [], limits=spec.limits)


def _build_route(name: str, job: JobView, *, weight: int, is_hidden: bool = False) -> Route | None:
    if (made := job.status.artifact) is None:
        return None
    return Route(
        model_name=name,
        job=job.name,
        kind=made.kind,
        uri=made.uri,
        digest=made.digest,
        bytes=made.bytes,
        weight=weight,
        is_hidden=is_hidden,
    )


def plan_server(server: ServerView, seen: SeenServer, settings: Settings, now: datetime) -> ServerPlan:
    """Decide about one ModelServer."""
    conditions = Conditions.start(server.status.conditions, server.generation, now)
    status = server.status.model_copy(update={"observed_generation": server.generation})
    children: tuple[Manifest, ...] = ()
    annotate: tuple[tuple[str, dict[str, str]], ...] = ()
    problem = (Reason.CONFLICT, seen.conflict) if seen.conflict else None
    if server.spec is None:
        problem = (Reason.INVALID_SPEC, server.problem)
    if server.spec is None or problem:
        for kind in (ConditionType.ACCEPTED, ConditionType.READY):
            conditions.set(kind, status=False, reason=(problem or _UNKNOWN)[0], message=(problem or _UNKNOWN)[1])
        again_after = None
    else:
        rollouts = advance_rollouts(server, server.spec, seen, now)
        routes = build_route_list(server.name, server.spec, rollouts, seen.jobs)
        uris = sorted(job_file(job).output_uri for job in seen.jobs if job.spec)
        children = (
            build_routes(server, routes),
            build_deployment(server, uris, settings),
            build_service(server),
            build_disruption_budget(server),
            build_network_policy(server, server.spec),
            *([build_autoscaler(server, server.spec)] if server.spec.autoscaling or seen.has_autoscaler else []),
        )
        digest = digest_routes(routes)
        annotate = tuple(
            (pod.name, {ROUTES_ANNOTATION: digest})
            for pod in seen.pods
            if pod.address and pod.routes_annotation != digest
        )
        models = [_served(route, seen.pods) for route in routes.routes if not route.is_hidden]
        ready = [pod for pod in seen.pods if pod.ready]
        status = status.model_copy(
            update={
                "replicas": len(seen.pods),
                "ready_replicas": len(ready),
                "endpoint": endpoint_of(server.namespace, server.name),
                "models": models,
                "rollouts": rollouts,
            }
        )
        conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
        wanted = server.spec.autoscaling.min_replicas if server.spec.autoscaling else server.spec.replicas
        _set_ready(conditions, wanted, seen.pods)
        pending = any(model.loaded_pods < len(ready) and not model.message for model in models)
        is_moving = pending or any(one.candidate for one in rollouts)
        again_after = LOADING_SECONDS if is_moving or len(ready) < wanted else None
    listed = conditions.listed()
    reason = conditions.by_type[ConditionType.READY].reason
    status = status.model_copy(update={"conditions": listed, "reason": reason})
    events = tuple(changed_conditions(server.status.conditions, listed))
    return ServerPlan(children, status.to_dict(), events, again_after, annotate)


_UNKNOWN = (Reason.INVALID_SPEC, "the spec could not be read")


def _served(route: Route, pods: list[ServerPod]) -> ServedModel:
    """Count only pods that are ready and say so themselves, of exactly this content."""
    loaded, message = 0, ""
    for pod in pods:
        for model in pod.loaded.models if pod.loaded else []:
            if (model.model_name, model.job, model.digest) != (route.model_name, route.job, route.digest):
                continue
            loaded += pod.ready and model.state == "Loaded"
            message = message or (model.message if model.state == "Refused" else "")
    return ServedModel(
        name=route.model_name,
        job=route.job,
        digest=route.digest,
        weight=route.weight,
        loaded_pods=loaded,
        message=message,
    )


def _traffic(name: str, ready: list[ServerPod]) -> dict[str, Traffic]:
    """Return what the ready pods say of the versions of a name, by job."""
    found: dict[str, Traffic] = {}
    for pod in ready:
        for model in pod.loaded.models if pod.loaded else []:
            if model.model_name != name:
                continue
            sum_ = found.get(model.job, Traffic())
            tally = Tally(
                requests=sum_.tally.requests + model.requests,
                errors=sum_.tally.errors + model.errors,
                seconds=sum_.tally.seconds + model.seconds,
            )
            found[model.job] = Traffic(sum_.loaded_pods + (model.state == "Loaded"), tally)
    return found


def _set_ready(conditions: Conditions, replicas: int, pods: list[ServerPod]) -> None:
    ready = sum(pod.ready for pod in pods)
    if ready >= replicas:
        conditions.set(
            ConditionType.READY,
            status=True,
            reason=Reason.SERVING,
            message=f"{ready} of {replicas} pods serve",
        )
        return
    waiting = next((pod.waiting for pod in pods if pod.waiting), "")
    kind = waiting.partition(": ")[0]
    reason = Reason.DEPLOYING
    if kind == "Unschedulable":
        reason = Reason.UNSCHEDULABLE
    elif kind in ("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName"):
        reason = Reason.IMAGE_PULL_FAILED
    message = f"{ready} of {replicas} pods serve" + (f"; {waiting}" if waiting else "")
    conditions.set(ConditionType.READY, status=False, reason=reason, message=message)
