"""The children of a FineTuneJob: the claim, the training Service, and one Job per attempt at a stage."""

from typing import Any

from finetune_api.artifact import Artifact, Incumbent
from finetune_api.compute import Compute, Placement, Resources
from finetune_api.contract.commands import Evaluate, Export, Prepare, Train, build_server_url
from finetune_api.contract.jobfile import JobFile
from finetune_api.contract.mounts import (
    BUCKET,
    DEFAULT_CLAIM,
    HTTPS_HOSTS,
    HUB,
    JOB_FILE,
    MODEL,
    VALIDATION,
    Source,
    train_source,
)
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobstatus import EvaluationServer
from finetune_api.meta import JOB_ANNOTATION, JOB_LABEL, METRICS_PORT, QUEUE_LABEL, STAGE_LABEL
from finetune_api.quantity import parse_quantity
from finetune_api.stage import Stage
from finetune_api.tracking import MLFLOW_KEYS, WANDB_KEYS, Tracking
from finetune_api.uris import parse_uri

from finetune_operator.kube.kinds import OWNED_LABEL, Manifest
from finetune_operator.manifests.isolation import network_labels
from finetune_operator.manifests.names import (
    MANAGED_BY,
    build_metadata,
    job_file,
    job_labels,
    stage_job_name,
    stage_labels,
    training_service_name,
)
from finetune_operator.manifests.pod import Remote, Volumes, build_credential_env, build_pod_spec
from finetune_operator.settings import Settings
from finetune_operator.state.child_jobs import API_KEY
from finetune_operator.state.views import JobView

_FAIL_ON_DISRUPTION = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
_STOP_SECONDS = 120
"""Termination grace period: time to save a checkpoint after SIGTERM."""


def build_claim(job: JobView, settings: Settings) -> Manifest:
    """Return the namespace's claim for artifacts. No job owns it, so it outlives every job."""
    spec: Manifest = {
        "accessModes": [settings.artifacts.access_mode],
        "resources": {"requests": {"storage": settings.artifacts.size}},
    }
    if settings.artifacts.storage_class_name:
        spec["storageClassName"] = settings.artifacts.storage_class_name
    labels = MANAGED_BY | {OWNED_LABEL: "true"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": DEFAULT_CLAIM, "namespace": job.namespace, "labels": labels},
        "spec": spec,
    }


def build_training_service(job: JobView) -> Manifest:
    """Return the headless Service that gives each pod of a training on several nodes a DNS name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(job, training_service_name(job), job_labels(job)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_LABEL: job.name, STAGE_LABEL: str(Stage.TRAIN)},
        },
    }


def build_stage_job(job: JobView, stage: Stage, attempt: int, settings: Settings) -> Manifest:
    """Return the Job of one attempt. It never restarts a pod: the operator decides how to handle a failure.

    Raises:
        ValueError: the spec is invalid.
    """
    file = job_file(job)
    spec = file.spec
    name, labels = stage_job_name(job, stage, attempt), stage_labels(job, stage, attempt)
    sources = _sources(spec, stage)
    uris = [source.uri for source in sources.values()]
    volumes = build_volumes(job, stage)
    volumes.add_annotation("job", JOB_ANNOTATION, JOB_FILE)
    container = _build_container(job, stage, attempt, settings)
    env = _build_env(sources, settings) + _tracker_env(spec.tracking if stage is Stage.TRAIN else None)
    if stage is Stage.EVALUATE:
        env += _server_env(job.status.evaluation_server)
    pod = build_pod_spec(settings, _place(job, spec, stage, settings), container, volumes, env)
    pod |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": _STOP_SECONDS}
    nodes = spec.compute.nodes if stage is Stage.TRAIN else 1
    if nodes > 1:
        pod["subdomain"] = training_service_name(job)
    queue = _queue_label(job, stage, spec.compute)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": build_metadata(job, name, labels | queue),
        "spec": {
            # Kueue resumes the Job, and suspends it again to preempt it; after creation only Kueue changes this field.
            **({"suspend": True} if queue else {}),
            "completions": nodes,
            "parallelism": nodes,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [_FAIL_ON_DISRUPTION]},
            "template": {
                "metadata": {
                    "labels": labels | network_labels(spec, stage, uris),
                    "annotations": {JOB_ANNOTATION: file.to_json()},
                },
                "spec": pod,
            },
        },
    }


def build_volumes(job: JobView, stage: Stage) -> Volumes:
    """Return the claims and ConfigMaps that the pod of a stage mounts.

    Raises:
        ValueError: the spec is invalid.
    """
    file = job_file(job)
    uris = [source.uri for source in _sources(file.spec, stage).values()]
    return Volumes(writable=[file.output_uri], readable=[*uris, *_list_other_uris(job, file, stage)])


def names_default_claim(job: JobView) -> bool:
    """Return whether the job writes its artifact to the claim that the operator creates."""
    return parse_uri(job_file(job).output_uri).authority == DEFAULT_CLAIM


def _place(job: JobView, spec: FineTuneJobSpec, stage: Stage, settings: Settings) -> Placement:
    """Return resources and placement of a stage.

    Merging needs the memory of the training but no GPU; an evaluation on a server needs neither. A small stage requests
    no more cores than the training, which may be all that a node has.
    """
    small = settings.small_stages
    cpu = min(small.cpu, spec.compute.resources.cpu, key=parse_quantity)
    small_placement = Placement(resources=Resources(cpu=cpu, memory=small.memory))
    match stage:
        case Stage.EVALUATE if job.status.evaluation_server:
            return small_placement
        case Stage.TRAIN | Stage.EVALUATE:
            return spec.compute
        case Stage.EXPORT if spec.output and spec.output.merged:
            resources = spec.compute.resources.model_copy(update={"gpus": 0})
            return spec.compute.model_copy(update={"resources": resources})
    return small_placement


def _sources(spec: FineTuneJobSpec, stage: Stage) -> dict[Source, Remote]:
    """Return the user's sources that a stage reads, and the destinations that it writes to or checks.

    Only `prepare` reads the data: later stages read its result.
    """
    sources: dict[Source, Remote] = {}
    if stage is not Stage.EXPORT or (spec.output and spec.output.merged):
        sources[MODEL] = spec.model
    if stage is Stage.PREPARE:
        for index, source in enumerate(spec.dataset.sources.values()):
            sources[train_source(index)] = source
        if spec.dataset.validation:
            sources[VALIDATION] = spec.dataset.validation
    if stage in (Stage.PREPARE, Stage.EXPORT) and spec.output:
        if spec.output.bucket:
            sources[BUCKET] = spec.output.bucket
        if spec.output.hub:
            sources[HUB] = spec.output.hub
    return sources


def _build_env(sources: dict[Source, Remote], settings: Settings) -> list[dict[str, Any]]:
    """Return the credentials of the sources, and the allowed hosts if a source is `https`."""
    env = build_credential_env(sources)
    if any(parse_uri(source.uri).scheme == "https" for source in sources.values()):
        env.append({"name": HTTPS_HOSTS, "value": ",".join(settings.sources.https_hosts)})
    return env


def _tracker_env(tracking: Tracking | None) -> list[Manifest]:
    """Return environment variables that refer to the keys of the trackers' Secrets.

    All keys are optional: a Secret for MLflow has a user or a token, and a missing key only disables the tracker.
    """
    secrets = (
        (tracking.wandb.secret_ref if tracking and tracking.wandb else None, WANDB_KEYS),
        (tracking.mlflow.secret_ref if tracking and tracking.mlflow else None, MLFLOW_KEYS),
    )
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key, "optional": True}}}
        for secret, keys in secrets
        if secret
        for key in keys
    ]


def _server_env(server: EvaluationServer | None) -> list[Manifest]:
    """Return the API key of the evaluation server, as the variable that OpenAI's client reads."""
    if server is None or server.secret_ref is None:
        return []
    reference = {"name": server.secret_ref.name, "key": server.key}
    return [{"name": API_KEY, "valueFrom": {"secretKeyRef": reference}}]


def _build_container(job: JobView, stage: Stage, attempt: int, settings: Settings) -> Manifest:
    """Return the fields of a stage's container that differ between stages."""
    container: Manifest = {"name": stage.lower()}
    match stage:
        case Stage.PREPARE:
            command = _build_prepare(job_file(job).spec.compute, settings)
            return container | {"image": settings.images.trainer, "args": command.to_args()}
        case Stage.TRAIN:
            return container | {
                "image": settings.images.trainer,
                "args": _build_train(job, attempt).to_args(),
                "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
            }
        case Stage.EVALUATE:
            return container | {"image": settings.images.serving, "args": _build_evaluate(job).to_args()}
        case Stage.EXPORT:
            return container | {"image": settings.images.trainer, "args": Export(_artifact_of(job)).to_args()}


def _build_prepare(compute: Compute, settings: Settings) -> Prepare:
    """Return the command with the GPU that the estimate is for, as far as the administrator has described it."""
    if not compute.resources.gpus:
        return Prepare()
    return Prepare(settings.gpu.find_kind(compute.node_selector), settings.gpu.currency)


def _build_train(job: JobView, attempt: int) -> Train:
    """Return the command. The processes of several nodes meet in the first pod, which an Indexed Job numbers 0."""
    if job.spec is None or job.spec.compute.nodes == 1:
        return Train(attempt)
    return Train(attempt, leader=f"{stage_job_name(job, Stage.TRAIN, attempt)}-0.{training_service_name(job)}")


def _build_evaluate(job: JobView) -> Evaluate:
    """Return the command. Artifact and incumbent are those of the status, so that every attempt compares the same."""
    server = job.status.evaluation_server
    return Evaluate(
        _artifact_of(job),
        job.status.incumbent or Incumbent(),
        build_server_url(job.namespace, server.name) if server else "",
    )


def _artifact_of(job: JobView) -> Artifact:
    if job.status.artifact is None:
        raise ValueError(f"{job.name} has no artifact")
    return job.status.artifact


def _list_other_uris(job: JobView, file: JobFile, stage: Stage) -> list[str]:
    """Return the URIs that a stage reads besides the user's sources: artifacts of other jobs, and the chat template."""
    uris, incumbent = [], job.status.incumbent
    if stage is Stage.EVALUATE and incumbent and incumbent.artifact:
        uris.append(incumbent.artifact.uri)
    if file.warm_start and (stage is Stage.TRAIN or file.kept):
        uris.append(file.warm_start.artifact.uri)
    if stage is Stage.PREPARE and file.spec.model.chat_template:
        # Later stages use the copy of prepare.
        uris.append(file.spec.model.chat_template)
    return uris


def _queue_label(job: JobView, stage: Stage, compute: Compute) -> dict[str, str]:
    """Return the label that puts stages that may request a GPU into the Kueue queue."""
    is_small = stage is Stage.EVALUATE and job.status.evaluation_server
    if compute.queue_name is None or is_small or stage not in (Stage.TRAIN, Stage.EVALUATE):
        return {}
    return {QUEUE_LABEL: compute.queue_name}
