"""The children of a ModelServer, and the ModelServer that a FineTuneJob makes for itself."""

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
"""Longest time for requests in flight before vLLM is told to stop."""
_STOP_SECONDS = _DRAIN_SECONDS + 60
"""Longer than the drain, and the time that vLLM has for requests that still came."""
_START_SECONDS = 1800
"""Time for a large model to be fetched and loaded."""


def build_model_server(job: JobView) -> Manifest:
    """Return the server of the job's own, named like the job: of its base model, or of the whole model that it made.

    Raises:
        ValueError: the job asks for none.
    """
    if job.spec is None or job.spec.serving is None or job.spec.serving.template is None:
        raise ValueError(f"{job.name} has no serving.template")
    made = job.status.artifact
    base = Model.model_validate(job_file(job).base.to_dict())
    model = Model(uri=made.uri) if made and made.kind == "Model" else base
    spec = ModelServerSpec(model=model, **dict(job.spec.serving.template))
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelServer",
        "metadata": build_metadata(job, job.name, job_labels(job)),
        # What it pins is not the job's to say.
        "spec": {name: value for name, value in spec.to_dict().items() if name != "pins"},
    }


def build_routes_file(server: ServerView, routes: Routes) -> Manifest:
    """Return the ConfigMap that tells the server's pods what to host."""
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
    """Return the Deployment. Routes are not part of it: a new adapter restarts no pod.

    Args:
        server: the ModelServer.
        artifact_uris: `pvc://` URIs of every job that names the server; their claims are mounted.
        settings: the administrator's.

    Raises:
        ValueError: the spec could not be read.
    """
    spec = server.spec
    if spec is None:
        raise ValueError(f"{server.name}: {server.problem}")
    labels = server_labels(server)
    volumes = Volumes(readable=[spec.model.uri, *artifact_uris])
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
            # Where pods come and go with the requests, their number is the autoscaler's.
            **({} if spec.autoscaling else {"replicas": spec.replicas}),
            "progressDeadlineSeconds": _START_SECONDS + 60,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def build_service(server: ServerView) -> Manifest:
    """Return the Service behind the stable address."""
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
