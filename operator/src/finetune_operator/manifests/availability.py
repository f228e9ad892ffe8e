"""What keeps a server's pods enough, reachable and apart: a disruption budget, an autoscaler, a network policy."""

from finetune_api.meta import IN_FLIGHT_METRIC, SERVER_PORT
from finetune_api.modelserver import ModelServerSpec
from finetune_api.uris import parse_uri

from finetune_operator.kube.kinds import Manifest
from finetune_operator.manifests.isolation import DNS_RULE, build_way_out
from finetune_operator.manifests.names import build_metadata, server_labels
from finetune_operator.settings import Settings
from finetune_operator.state.views import ServerView

_STEADY_SECONDS = 300
"""How long fewer requests must last before pods go: loading a model anew takes minutes."""


def build_disruption_budget(server: ServerView) -> Manifest:
    """Return the budget: one pod at a time is drained, so that a server of several goes on answering."""
    labels = server_labels(server)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": build_metadata(server, server.name, labels),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    }


def build_network_policy(server: ServerView, spec: ModelServerSpec, settings: Settings) -> Manifest:
    """Return the policy: requests come in at one port; out goes what fetches the model, and nothing else."""
    labels = server_labels(server)
    outside: list[Manifest] = [] if parse_uri(spec.model.uri).scheme == "pvc" else [build_way_out(settings.network)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(server, server.name, labels),
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": SERVER_PORT}]}],
            "egress": [DNS_RULE, *outside],
        },
    }


def build_autoscaler(server: ServerView, spec: ModelServerSpec) -> Manifest:
    """Return the autoscaler, by the requests in flight of a pod; without `autoscaling` it holds `replicas`."""
    wanted = spec.autoscaling
    least, most = (wanted.min_replicas, wanted.max_replicas) if wanted else (max(spec.replicas, 1),) * 2
    value = str(wanted.requests_per_pod if wanted else 1)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": build_metadata(server, server.name, server_labels(server)),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": server.name},
            "minReplicas": least,
            "maxReplicas": most,
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
