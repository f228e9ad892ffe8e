"""The routes of a ModelServer: which versions it hosts with which weights, and what its pods report of them. No I/O."""

from datetime import UTC, datetime

from finetune_api.conditions import ConditionType
from finetune_api.contract.routes import Route, Routes
from finetune_api.modelserver import ModelServerSpec, ServedModel
from finetune_api.rollout import RolloutStatus, Tally

from finetune_operator.job.evaluation import find_job_under_evaluation
from finetune_operator.job.results import find_template_digest
from finetune_operator.manifests.names import job_file
from finetune_operator.server.rollouts import VersionTraffic, advance_rollout, assign_weights
from finetune_operator.state.child_jobs import ServerPod
from finetune_operator.state.conditions import true_conditions
from finetune_operator.state.views import JobView, ServerView


def gates_passed_time(job: JobView) -> datetime | None:
    """Return when the job's result passed its gates; None if it did not."""
    evaluated = true_conditions(job.status.conditions).get(ConditionType.EVALUATED)
    return evaluated.last_transition_time if evaluated and job.status.artifact else None


def versions_by_name(jobs: list[JobView]) -> dict[str, list[JobView]]:
    """Return for each public model name the jobs that passed their gates, in the order in which they did."""
    passed = [job for job in jobs if gates_passed_time(job)]
    passed.sort(key=lambda job: (gates_passed_time(job) or datetime.min.replace(tzinfo=UTC), job.name))
    versions: dict[str, list[JobView]] = {}
    for job in passed:
        if job.spec and job.spec.serving:
            versions.setdefault(job.spec.serving.model_name, []).append(job)
    return dict(sorted(versions.items()))


def find_newer_job(job: JobView, jobs: list[JobView]) -> str | None:
    """Return the job that last passed its gates under a job's model name, if it did so after this job; otherwise None.

    While this job is evaluated, its status does not say that it passed: no other job is newer.
    """
    if job.spec is None or job.spec.serving is None or gates_passed_time(job) is None:
        return None
    versions = versions_by_name(jobs).get(job.spec.serving.model_name)
    return versions[-1].name if versions and versions[-1].uid != job.uid else None


def advance_rollouts(
    spec: ModelServerSpec, known: list[RolloutStatus], jobs: list[JobView], pods: list[ServerPod], now: datetime
) -> list[RolloutStatus]:
    """Return the next state of each name's rollout."""
    before = {rollout.name: rollout for rollout in known}
    ready = [pod for pod in pods if pod.ready]
    versions = versions_by_name(jobs)
    # A hosted name keeps its place; the remaining capacity goes to the names that passed their gates first.
    names = sorted(versions, key=lambda name: (name not in before, gates_passed_time(versions[name][0]), name))
    return [
        advance_rollout(
            name,
            versions[name],
            before.get(name),
            _sum_traffic(name, ready),
            len(ready),
            now,
            is_pinned=name in spec.pins,
        )
        for name in sorted(names[: spec.lora.max_adapters])
    ]


def build_routes(server: str, spec: ModelServerSpec, rollouts: list[RolloutStatus], jobs: list[JobView]) -> Routes:
    """Return the routes file of a server: the versions to host, the API keys and the limits."""
    versions = versions_by_name(jobs)
    routes = [
        _build_route(rollout.name, job, weight=weight)
        for rollout in rollouts
        for job, weight in assign_weights(rollout, versions[rollout.name], spec.pins.get(rollout.name))
    ]
    evaluated = find_job_under_evaluation(server, jobs)
    if evaluated and evaluated.spec and evaluated.spec.serving:
        routes.append(_build_route(evaluated.spec.serving.model_name, evaluated, weight=0, is_hidden=True))
    return Routes(
        routes=[route for route in routes if route], keys=spec.auth.keys if spec.auth else [], limits=spec.limits
    )


def _build_route(name: str, job: JobView, *, weight: int, is_hidden: bool = False) -> Route | None:
    if (artifact := job.status.artifact) is None:
        return None
    template = find_template_digest(job_file(job).base, job.status.dataset)
    return Route(
        model_name=name,
        job=job.name,
        kind=artifact.kind,
        uri=artifact.uri,
        digest=artifact.digest,
        bytes=artifact.bytes,
        weight=weight,
        thinking_off=_is_thinking_off(job) or None,
        # A whole model contains its chat template.
        chat_template=None if artifact.kind == "Model" else template,
        is_hidden=is_hidden,
    )


def _is_thinking_off(job: JobView) -> bool:
    """Return whether the job's result was trained with thinking switched off."""
    start, dataset = job.status.warm_start, job.status.dataset
    return bool(start.thinking_off if start and start.is_kept else dataset and dataset.thinking_off)


def pin_chat_template(server: ServerView, routes: list[Route], pods: list[ServerPod]) -> str | None:
    """Return the digest of the chat template with which a server's pods must start; None while it is not known.

    It stays the same: the pods that run keep it, and adapters were trained with it.

    Args:
        server: the ModelServer.
        routes: the versions that it hosts.
        pods: its pods.
    """
    if server.spec is None or server.spec.model.chat_template is None:
        return None
    trained = (route.chat_template for route in routes)
    started = (pod.loaded.chat_template for pod in pods if pod.ready and pod.loaded)
    return next(filter(None, (server.status.chat_template, *trained, *started)), None)


def describe_served(route: Route, pods: list[ServerPod], before: list[ServedModel]) -> ServedModel:
    """Return the status of a route: how many ready pods have loaded exactly this version, and its weight.

    The weight is the smallest that a pod reports: the rollout is not done before the last pod has read its new routes.

    Args:
        route: the version of a name.
        pods: the server's pods.
        before: the models in the status so far. They replace the reports of pods that this operator has not heard of
            yet, so that a restarted operator does not report a served version as not served.
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
    known = next((model for model in before if (model.name, model.job, model.digest) == version), None)
    unobserved = sum(pod.ready and pod.not_yet_observed for pod in pods)
    loaded = len(weights)
    if known and unobserved:
        loaded = max(loaded, min(known.loaded_pods, loaded + unobserved))
        weights.append(known.weight)
    return ServedModel(
        name=route.model_name,
        job=route.job,
        digest=route.digest,
        weight=min(weights, default=route.weight),
        loaded_pods=loaded,
        message=message,
    )


def _sum_traffic(name: str, ready: list[ServerPod]) -> dict[str, VersionTraffic]:
    """Return the sum of what the ready pods report about the versions of a name, by job."""
    traffic: dict[str, VersionTraffic] = {}
    for pod in ready:
        models = pod.loaded.models if pod.loaded else []
        # A version that a pod reports twice counts once.
        for model in {model.job: model for model in models if model.model_name == name}.values():
            total = traffic.get(model.job, VersionTraffic())
            tally = Tally(
                requests=total.tally.requests + model.requests,
                errors=total.tally.errors + model.errors,
                seconds=total.tally.seconds + model.seconds,
            )
            traffic[model.job] = VersionTraffic(total.loaded_pods + (model.state == "Loaded"), tally)
    return traffic
