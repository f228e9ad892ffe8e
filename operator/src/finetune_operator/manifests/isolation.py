"""The NetworkPolicies of the pods of FineTuneJobs.

All jobs of a namespace share two policies, which select pods by label, so that another job needs no further write. One
allows every stage ingress to its metrics port, and egress to DNS and to the servers of the namespace; the other allows
external egress for pods that fetch or send something. A training on several nodes has its own policy: policies cannot
select "pods whose label has the same value", so with a shared one trainings could reach one another.
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
"""Label of pods with external egress; its value is `Outside`."""
_EXTERNAL = "Outside"
_MOUNTED = ("pvc", "configmap")
DNS_RULE: Manifest = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}
"""The egress rule that lets pods resolve names."""


def build_isolation(namespace: str, network: Network) -> list[Manifest]:
    """Return the policies that all jobs of a namespace share. No job owns them, so they outlive every job."""
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
    external: Manifest = {
        "podSelector": {"matchLabels": MANAGED_BY | {NETWORK_LABEL: _EXTERNAL}},
        "policyTypes": ["Egress"],
        "egress": [build_external_egress(network)],
    }
    labels = MANAGED_BY | {OWNED_LABEL: "true"}
    return [
        _policy({"name": name, "namespace": namespace, "labels": labels}, spec)
        for name, spec in (("finetune-stages", stages), ("finetune-stages-outside", external))
    ]


def build_peers_policy(job: JobView) -> Manifest:
    """Return the policy that lets the pods of a training on several nodes reach one another, and no others."""
    pods = {"podSelector": {"matchLabels": MANAGED_BY | {JOB_LABEL: job.name, STAGE_LABEL: str(Stage.TRAIN)}}}
    spec = pods | {
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [pods]}],
        "egress": [{"to": [pods]}],
    }
    return _policy(build_metadata(job, training_service_name(job), job_labels(job)), spec)


def build_external_egress(network: Network) -> Manifest:
    """Return the egress rule of pods that fetch or send: every address except the blocked networks, and every pod."""
    blocks = []
    for cidr in ("0.0.0.0/0", "::/0"):
        version = ip_network(cidr).version
        blocked = [block for block in network.blocked if ip_network(block).version == version]
        blocks.append({"ipBlock": {"cidr": cidr} | ({"except": blocked} if blocked else {})})
    # Some network plugins never match a pod by its address, such as an object store in the cluster.
    return {"to": [*blocks, {"namespaceSelector": {}}]}


def network_labels(spec: FineTuneJobSpec, stage: Stage, uris: Iterable[str]) -> dict[str, str]:
    """Return the label of a stage's pods if they need external egress: to fetch, to send results or metrics.

    Args:
        spec: the job's spec.
        stage: the stage of the pods.
        uris: what the pods read and write.
    """
    is_fetching = any(parse_uri(uri).scheme not in _MOUNTED for uri in uris)
    tracking = spec.tracking if stage is Stage.TRAIN else None
    sends_metrics = tracking is not None and bool(tracking.wandb or tracking.mlflow)
    return {NETWORK_LABEL: _EXTERNAL} if is_fetching or sends_metrics else {}


def _policy(metadata: Manifest, spec: Manifest) -> Manifest:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
