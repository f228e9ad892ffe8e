"""The children of a ModelServer, and the ModelServer that a FineTuneJob creates for itself."""

import json
from collections.abc import Iterable
from pathlib import Path

from finetune_api.contract.commands import SERVER, Drain, Serve, build_server_url
from finetune_api.contract.mounts import KEYS, MODEL, MODEL_CACHE, ROUTES_FILE, SCRATCH
from finetune_api.contract.routes import Routes
from finetune_api.digest import digest_value
from finetune_api.meta import API_VERSION, SERVER_PORT
from finetune_api.modelserver import Model, ModelServerSpec

from finetune_operator.kube.kinds import Manifest
from finetune_operator.manifests.names import build_metadata, job_file, job_labels, routes_name, server_labels
from finetune_operator.manifests.pod import Volumes, build_credential_env, build_pod_spec
from finetune_operator.settings import Settings
from finetune_operator.state.views import JobView, ServerView

_DRAIN_SECONDS = 240
"""Maximum time for requests in flight before vLLM gets SIGTERM."""
_STOP_SECONDS = _DRAIN_SECONDS + 60
"""Termination grace period: the drain, and time for vLLM to finish late requests."""
_START_SECONDS = 1800
"""Time to fetch and load a large model."""


def build_model_server(job: JobView) -> Manifest:
    """Return a job's own ModelServer, which has the job's name and serves its base model or the full model it trained.

    Raises:
        ValueError: the job has no `serving.template`.
    """
    if job.spec is None or job.spec.serving is None or job.spec.serving.template is None:
        raise ValueError(f"{job.name} has no serving.template")
    artifact = job.status.artifact
    base = Model.model_validate(job_file(job).base.to_dict())
    model = Model(uri=artifact.uri) if artifact and artifact.kind == "Model" else base
    spec = ModelServerSpec(model=model, **dict(job.spec.serving.template))
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelServer",
        "metadata": build_metadata(job, job.name, job_labels(job)),
        # Pins belong to the user.
        "spec": {name: value for name, value in spec.to_dict().items() if name != "pins"},
    }


def build_routes_file(server: ServerView, routes: Routes) -> Manifest:
    """Return the ConfigMap with the routes that the server's pods host."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(server, routes_name(server.name), server_labels(server)),
        "data": {ROUTES_FILE.name: json.dumps(routes.to_dict(), indent=1, sort_keys=True)},
    }


def digest_routes(routes: Routes) -> str:
    """Return the value of the annotation that makes the kubelet refresh the mounted routes."""
    return digest_value(routes.to_dict())[:16]


def build_deployment(server: ServerView, artifact_uris: Iterable[str], settings: Settings) -> Manifest:
    """Return the Deployment. It does not depend on the routes, so that a new adapter restarts no pod.

    Args:
        server: the ModelServer.
        artifact_uris: `pvc://` URIs of the artifacts of the server's jobs, whose claims are mounted.
        settings: the administrator's settings.

    Raises:
        ValueError: the spec is invalid.
    """
    spec = server.spec
    if spec is None:
        raise ValueError(f"{server.name}: {server.problem}")
    labels = server_labels(server)
    template = [spec.model.chat_template] if spec.model.chat_template else []
    volumes = Volumes(readable=[spec.model.uri, *template, *artifact_uris])
    volumes.add_config_map("routes", routes_name(server.name), str(ROUTES_FILE.parent))
    if spec.model_cache:
        volumes.add_claim("model-cache", spec.model_cache, str(MODEL_CACHE))
    if spec.auth:
        volumes.add_secret("keys", spec.auth.secret_ref.name, str(KEYS))
    container: Manifest = {
        "name": "server",
        "image": settings.images.serving,
        "args": _build_command(spec).to_args(),
        "ports": [{"name": "http", "containerPort": SERVER_PORT}],
        "startupProbe": _probe("/health", period=5, failures=_START_SECONDS // 5),
        "livenessProbe": _probe("/health", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "lifecycle": {"preStop": {"exec": {"command": [SERVER, *Drain(_DRAIN_SECONDS).to_args()]}}},
    }
    pod = build_pod_spec(settings, spec, container, volumes, build_credential_env({MODEL: spec.model}))
    pod["terminationGracePeriodSeconds"] = _STOP_SECONDS
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": build_metadata(server, server.name, labels),
        "spec": {
            # With `autoscaling` the autoscaler sets the number of pods.
            **({} if spec.autoscaling else {"replicas": spec.replicas}),
            "progressDeadlineSeconds": _START_SECONDS + 60,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def build_service(server: ServerView) -> Manifest:
    """Return the Service with the stable address."""
    labels = server_labels(server)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(server, server.name, labels),
        "spec": {
            "type": "ClusterIP",
            "selector": labels,
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def endpoint_of(namespace: str, server: str) -> str:
    """Return the base URL for OpenAI clients inside the cluster."""
    return f"{build_server_url(namespace, server)}/v1"


def _build_command(spec: ModelServerSpec) -> Serve:
    return Serve(
        model_uri=spec.model.uri,
        max_rank=spec.lora.max_rank,
        max_adapters=spec.lora.max_adapters,
        engine=spec.engine,
        revision=spec.model.revision,
        chat_template=spec.model.chat_template,
        model_cache=Path(MODEL_CACHE if spec.model_cache else SCRATCH),
        keys=str(KEYS) if spec.auth else "",
    )


def _probe(path: str, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
