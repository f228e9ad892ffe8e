"""The disruption budget, the autoscaler and the network policy of a ModelServer."""

from finetune_api.meta import IN_FLIGHT_METRIC, SERVER_PORT
from finetune_api.modelserver import ModelServerSpec
from finetune_api.uris import parse_uri

from finetune_operator.kube.kinds import Manifest
from finetune_operator.manifests.isolation import DNS_RULE, build_external_egress
from finetune_operator.manifests.names import build_metadata, server_labels
from finetune_operator.settings import Settings
from finetune_operator.state.views import ServerView

_STEADY_SECONDS = 300
"""How long load must stay low before pods are removed: loading a model again takes minutes."""


def build_disruption_budget(server: ServerView) -> Manifest:
    """Return the PodDisruptionBudget: one pod is drained at a time, so that a server of several keeps serving."""
    labels = server_labels(server)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": build_metadata(server, server.name, labels),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    }


def build_network_policy(server: ServerView, spec: ModelServerSpec, settings: Settings) -> Manifest:
    """Return the NetworkPolicy: ingress to the HTTP port; egress to DNS, and to where the model is fetched from."""
    labels = server_labels(server)
    external: list[Manifest] = (
        [] if parse_uri(spec.model.uri).scheme == "pvc" else [build_external_egress(settings.network)]
    )
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(server, server.name, labels),
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": SERVER_PORT}]}],
            "egress": [DNS_RULE, *external],
        },
    }


def build_autoscaler(server: ServerView, spec: ModelServerSpec) -> Manifest:
    """Return the autoscaler on a pod's requests in flight; without `autoscaling` it keeps `replicas` pods."""
    scaling = spec.autoscaling
    minimum, maximum = (scaling.min_replicas, scaling.max_replicas) if scaling else (max(spec.replicas, 1),) * 2
    value = str(scaling.requests_per_pod if scaling else 1)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": build_metadata(server, server.name, server_labels(server)),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": server.name},
            "minReplicas": minimum,
            "maxReplicas": maximum,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": IN_FLIGHT_METRIC},
                        "target": {"type": "AverageValue", "averageValue": value},
                    },
                }
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": _STEADY_SECONDS}},
        },
    }
