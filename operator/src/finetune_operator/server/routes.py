"""Which versions a ModelServer hosts for whom, by what was proven, and what its pods say of them. Pure."""

from datetime import UTC, datetime

from finetune_api.conditions import ConditionType
from finetune_api.contract.routes import Route, Routes
from finetune_api.modelserver import ModelServerSpec, ServedModel
from finetune_api.rollout import RolloutStatus, Tally

from finetune_operator.job.evaluation import find_evaluated
from finetune_operator.server.rollouts import Traffic, advance, shares
from finetune_operator.state.child_jobs import ServerPod
from finetune_operator.state.conditions import true_conditions
from finetune_operator.state.views import JobView


def proven_at(job: JobView) -> datetime | None:
    """Return when the job's adapter passed its gates; None where it did not."""
    evaluated = true_conditions(job.status.conditions).get(ConditionType.EVALUATED)
    return evaluated.last_transition_time if evaluated and job.status.artifact else None


def proven_by_name(jobs: list[JobView]) -> dict[str, list[JobView]]:
    """Return for each public model name its jobs, in the order in which they were proven."""
    proven = [job for job in jobs if proven_at(job)]
    proven.sort(key=lambda job: (proven_at(job) or datetime.min.replace(tzinfo=UTC), job.name))
    names: dict[str, list[JobView]] = {}
    for job in proven:
        if job.spec and job.spec.serving:
            names.setdefault(job.spec.serving.model_name, []).append(job)
    return dict(sorted(names.items()))


def advance_rollouts(
    spec: ModelServerSpec, known: list[RolloutStatus], jobs: list[JobView], pods: list[ServerPod], now: datetime
) -> list[RolloutStatus]:
    """Return where the rollout of each name stands now."""
    before = {one.name: one for one in known}
    ready = [pod for pod in pods if pod.ready]
    proven = proven_by_name(jobs)
    # A name that is hosted keeps its place; the room that is left goes to those that were proven first.
    hosted = sorted(proven, key=lambda name: (name not in before, proven_at(proven[name][0]), name))
    return [
        advance(
            name, proven[name], before.get(name), _traffic(name, ready), len(ready), now, is_pinned=name in spec.pins
        )
        for name in sorted(hosted[: spec.lora.max_adapters])
    ]


def build_routes(server: str, spec: ModelServerSpec, rollouts: list[RolloutStatus], jobs: list[JobView]) -> Routes:
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


def describe_served(route: Route, pods: list[ServerPod], before: list[ServedModel]) -> ServedModel:
    """Return what the pods say of a route: those are counted that are ready and have loaded exactly this content.

    Its share is the smallest that one of them gives it: until the last pod has read its new routes, not all requests
    are answered as they say.

    Args:
        route: the version of a name.
        pods: the server's.
        before: what was said last. It stands for pods that were not heard of yet: an operator that begins, and finds a
            pod slow to answer, must not say of what serves that it does not.
    """
    version = (route.model_name, route.job, route.digest)
    weights, message = [], ""
    for pod in pods:
        model = pod.loaded.by_version.get(version) if pod.loaded else None
        if model is None:
            continue
        if pod.ready and model.state == "Loaded":
            weights.append(route.weight if model.weight is None else model.weight)
        message = message or (model.message if model.state == "Refused" else "")
    known = next((one for one in before if (one.name, one.job, one.digest) == version), None)
    unheard = sum(pod.ready and pod.is_unheard for pod in pods)
    loaded = len(weights)
    if known and unheard:
        loaded = max(loaded, min(known.loaded_pods, loaded + unheard))
        weights.append(known.weight)
    return ServedModel(
        name=route.model_name,
        job=route.job,
        digest=route.digest,
        weight=min(weights, default=route.weight),
        loaded_pods=loaded,
        message=message,
    )


def _traffic(name: str, ready: list[ServerPod]) -> dict[str, Traffic]:
    """Return what the ready pods say of the versions of a name, by job."""
    found: dict[str, Traffic] = {}
    for pod in ready:
        models = pod.loaded.models if pod.loaded else []
        # What a pod says twice counts once.
        for model in {one.job: one for one in models if one.model_name == name}.values():
            sum_ = found.get(model.job, Traffic())
            tally = Tally(
                requests=sum_.tally.requests + model.requests,
                errors=sum_.tally.errors + model.errors,
                seconds=sum_.tally.seconds + model.seconds,
            )
            found[model.job] = Traffic(sum_.loaded_pods + (model.state == "Loaded"), tally)
    return found
