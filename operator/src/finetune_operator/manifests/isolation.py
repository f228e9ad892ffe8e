"""What the pods of FineTuneJobs may reach, and who may reach them: NetworkPolicies. Pure.

All jobs of a namespace share two policies, which choose pods by label: a job more costs no write more. One lets every
stage be asked for its metrics, ask the names of the cluster and the servers of its namespace; the other one lets out
those pods alone that fetch or send something. Only a training on several nodes has a policy of its own, because
policies cannot say "pods whose label has the same value": trainings would reach one another.
"""

from collections.abc import Iterable
from ipaddress import ip_network

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.meta import JOB_LABEL, METRICS_PORT, SERVER_LABEL, SERVER_PORT, STAGE_LABEL
from finetune_api.stage import Stage
from finetune_api.uris import parse_uri

from finetune_operator.kube.kinds import OWNED_LABEL, Manifest
from finetune_operator.manifests.names import MANAGED_BY, build_metadata, job_labels, training_service_name
from finetune_operator.settings import Network
from finetune_operator.state.views import JobView

NETWORK_LABEL = "finetune.dev/network"
"""On pods, with the value `Outside`: they may reach what is not in their namespace."""
_OUTSIDE = "Outside"
_MOUNTED = ("pvc", "configmap")
DNS_RULE: Manifest = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}
"""The egress rule that lets pods resolve names."""


def build_isolation(namespace: str, network: Network) -> list[Manifest]:
    """Return the policies of all jobs of a namespace. No job owns them: they outlive them all."""
    if not network.isolate_jobs:
        return []
    stages: Manifest = {
        "podSelector": {
            "matchLabels": MANAGED_BY,
            "matchExpressions": [{"key": STAGE_LABEL, "operator": "Exists"}],
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": METRICS_PORT}]}],
        "egress": [
            DNS_RULE,
            {
                "to": [{"podSelector": {"matchExpressions": [{"key": SERVER_LABEL, "operator": "Exists"}]}}],
                "ports": [{"protocol": "TCP", "port": SERVER_PORT}],
            },
        ],
    }
    outside: Manifest = {
        "podSelector": {"matchLabels": MANAGED_BY | {NETWORK_LABEL: _OUTSIDE}},
        "policyTypes": ["Egress"],
        "egress": [build_way_out(network)],
    }
    labels = MANAGED_BY | {OWNED_LABEL: "true"}
    return [
        _policy({"name": name, "namespace": namespace, "labels": labels}, spec)
        for name, spec in (("finetune-stages", stages), ("finetune-stages-outside", outside))
    ]


def build_peers_policy(job: JobView) -> Manifest:
    """Return the policy by which the pods of a training on several nodes reach one another, and no others."""
    chosen = {"podSelector": {"matchLabels": MANAGED_BY | {JOB_LABEL: job.name, STAGE_LABEL: str(Stage.TRAIN)}}}
    spec = chosen | {
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [chosen]}],
        "egress": [{"to": [chosen]}],
    }
    return _policy(build_metadata(job, training_service_name(job), job_labels(job)), spec)


def build_way_out(network: Network) -> Manifest:
    """Return the rule for what fetches: every address but the blocked ones, and every pod."""
    blocks = []
    for everything in ("0.0.0.0/0", "::/0"):
        version = ip_network(everything).version
        blocked = [one for one in network.blocked if ip_network(one).version == version]
        blocks.append({"ipBlock": {"cidr": everything} | ({"except": blocked} if blocked else {})})
    # To some networks an address is never that of a pod, such as an object store in the cluster.
    return {"to": [*blocks, {"namespaceSelector": {}}]}


def network_labels(spec: FineTuneJobSpec, stage: Stage, uris: Iterable[str]) -> dict[str, str]:
    """Return the label of a stage's pods that may go outside: they fetch, send results, or tell a tracker.

    Args:
        spec: the job's.
        stage: of which the pods are.
        uris: what they read, and write.
    """
    is_fetching = any(parse_uri(uri).scheme not in _MOUNTED for uri in uris)
    tracking = spec.tracking if stage is Stage.TRAIN else None
    is_telling = tracking is not None and bool(tracking.wandb or tracking.mlflow)
    return {NETWORK_LABEL: _OUTSIDE} if is_fetching or is_telling else {}


def _policy(metadata: Manifest, spec: Manifest) -> Manifest:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
