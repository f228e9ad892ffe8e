"""Plans a ModelServer: its desired objects, the routes of its pods, and its next status. No I/O.

The server hosts the results of the FineTuneJobs that name it or created it, once they have passed their gates.
"""

from dataclasses import dataclass
from datetime import datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.contract.routes import Routes
from finetune_api.meta import ROUTES_ANNOTATION
from finetune_api.modelserver import EngineStatus, ModelServerSpec, ModelServerStatus

from finetune_operator.kube.kinds import Manifest
from finetune_operator.manifests.availability import (
    build_autoscaler,
    build_disruption_budget,
    build_network_policy,
)
from finetune_operator.manifests.names import job_file
from finetune_operator.manifests.server import (
    build_deployment,
    build_routes_file,
    build_service,
    digest_routes,
    endpoint_of,
)
from finetune_operator.server.routes import advance_rollouts, build_routes, describe_served, pin_chat_template
from finetune_operator.settings import Settings
from finetune_operator.state.child_jobs import IMAGE_PULL_ERRORS, ServerPod
from finetune_operator.state.conditions import Conditions, changed_conditions
from finetune_operator.state.plan import Plan
from finetune_operator.state.views import JobView, ServerView

LOADING_SECONDS = 2.0
"""How often the pods are asked for their loaded models while a rollout is not finished."""


@dataclass(frozen=True)
class ServerSnapshot:
    """Everything in the cluster that the plan of one ModelServer depends on."""

    jobs: list[JobView]
    """The FineTuneJobs that name it or created it."""
    pods: list[ServerPod]
    conflict: str = ""
    """Why a child cannot be created: its name is taken by an object with another controller."""
    has_autoscaler: bool = False
    """Whether its HorizontalPodAutoscaler exists."""


def plan_server(server: ServerView, snapshot: ServerSnapshot, settings: Settings, now: datetime) -> Plan:
    """Return what to do about one ModelServer."""
    spec, pods = server.spec, snapshot.pods
    if snapshot.conflict or spec is None:
        problem = (Reason.CONFLICT, snapshot.conflict) if snapshot.conflict else (Reason.INVALID_SPEC, server.problem)
        return _refuse(server, *problem, now)
    rollouts = advance_rollouts(spec, server.status.rollouts, snapshot.jobs, pods, now)
    routes = build_routes(server.name, spec, rollouts, snapshot.jobs)
    chat_template = pin_chat_template(server, routes.routes, pods)
    routes = routes.model_copy(update={"chat_template": chat_template})
    public = [route for route in routes.routes if not route.is_hidden]
    models = [describe_served(route, pods, server.status.models) for route in public]
    ready = [pod for pod in pods if pod.ready]
    replicas = spec.autoscaling.min_replicas if spec.autoscaling else spec.replicas
    conditions = Conditions.start(server.status.conditions, server.generation, now)
    conditions.set(ConditionType.ACCEPTED, status=True, reason=Reason.ACCEPTED)
    _set_ready(conditions, replicas, pods)
    status = server.status.model_copy(
        update={
            "observed_generation": server.generation,
            "replicas": len(pods),
            "ready_replicas": len(ready),
            "endpoint": endpoint_of(server.namespace, server.name),
            "chat_template": chat_template,
            "engine": _find_engine(ready) or server.status.engine,
            "models": models,
            "rollouts": rollouts,
        }
    )
    is_changing = (
        any(model.loaded_pods < len(ready) and not model.message for model in models)
        or any(model.weight != route.weight for model, route in zip(models, public, strict=True))
        or any(pod.not_yet_observed for pod in ready)
        or len(ready) < replicas
        or any(rollout.candidate for rollout in rollouts)
    )
    digest = digest_routes(routes)
    return _build_plan(
        server,
        conditions,
        status,
        desired=_build_children(server, spec, routes, snapshot, settings),
        requeue_after=LOADING_SECONDS if is_changing else None,
        pod_annotations=tuple(
            (pod.name, {ROUTES_ANNOTATION: digest}) for pod in pods if pod.address and pod.routes_annotation != digest
        ),
    )


def _find_engine(ready: list[ServerPod]) -> EngineStatus | None:
    """Return the settings that a pod reports; None if none does. All pods of one spec and image choose the same."""
    return next((pod.loaded.engine for pod in ready if pod.loaded and pod.loaded.engine), None)


def _refuse(server: ServerView, reason: Reason, message: str, now: datetime) -> Plan:
    """Return a plan that changes no child and reports the problem."""
    conditions = Conditions.start(server.status.conditions, server.generation, now)
    for kind in (ConditionType.ACCEPTED, ConditionType.READY):
        conditions.set(kind, status=False, reason=reason, message=message)
    status = server.status.model_copy(update={"observed_generation": server.generation})
    return _build_plan(server, conditions, status, desired=())


def _build_plan(
    server: ServerView,
    conditions: Conditions,
    status: ModelServerStatus,
    desired: tuple[Manifest, ...],
    requeue_after: float | None = None,
    pod_annotations: tuple[tuple[str, dict[str, str]], ...] = (),
) -> Plan:
    listed = conditions.listed()
    reason = conditions.by_type[ConditionType.READY].reason
    status = status.model_copy(update={"conditions": listed, "reason": reason})
    events = tuple(changed_conditions(server.status.conditions, listed))
    return Plan(desired, status.to_dict(), events, requeue_after, pod_annotations=pod_annotations)


def _build_children(
    server: ServerView, spec: ModelServerSpec, routes: Routes, snapshot: ServerSnapshot, settings: Settings
) -> tuple[Manifest, ...]:
    uris = sorted(job_file(job).output_uri for job in snapshot.jobs if job.spec)
    return (
        build_routes_file(server, routes),
        build_deployment(server, uris, settings),
        build_service(server),
        build_disruption_budget(server),
        build_network_policy(server, spec, settings),
        *([build_autoscaler(server, spec)] if spec.autoscaling or snapshot.has_autoscaler else []),
    )


def _set_ready(conditions: Conditions, replicas: int, pods: list[ServerPod]) -> None:
    ready = sum(pod.ready for pod in pods)
    message = f"{ready} of {replicas} pods are ready"
    # While enough pods answer, a new pod, with a changed spec or image, may be unable to start.
    waiting = next((pod.waiting for pod in pods if pod.waiting), "")
    message += f"; {waiting}" if waiting else ""
    if ready >= replicas:
        conditions.set(ConditionType.READY, status=True, reason=Reason.SERVING, message=message)
        return
    kind = waiting.partition(": ")[0]
    reason = Reason.DEPLOYING
    if kind == "Unschedulable":
        reason = Reason.UNSCHEDULABLE
    elif kind in IMAGE_PULL_ERRORS:
        reason = Reason.IMAGE_PULL_FAILED
    conditions.set(ConditionType.READY, status=False, reason=reason, message=message)
