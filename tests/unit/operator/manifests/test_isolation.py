"""Whom the pods of jobs may reach, and who may reach them, by the rules of NetworkPolicies."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from finetune_api.meta import METRICS_PORT, SERVER_PORT
from finetune_api.stage import Stage
from finetune_operator.manifests.isolation import build_isolation, build_peers_policy
from finetune_operator.manifests.stages import build_stage_job
from finetune_operator.settings import Network, Settings
from finetune_operator.state.views import JobView, view_job

SETTINGS = Settings.model_validate({"images": {"trainer": "trainer:1", "serving": "serving:1"}})
OUTSIDE, METADATA, METADATA_6 = "93.184.216.34", "169.254.169.254", "fd00:ec2::254"
Manifest = dict[str, Any]


def make_job(name: str = "shop", **spec: Any) -> JobView:
    base: Manifest = {
        "model": {"uri": "pvc://models/base"},
        "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
        "method": {"sft": {}},
        "adapter": {"lora": {}},
    }
    artifact = {"uri": "pvc://finetune-artifacts/a", "digest": "sha256:" + "a" * 64, "bytes": 1}
    metadata = {"name": name, "namespace": "team", "uid": f"uid-of-{name}", "generation": 1}
    return view_job({"metadata": metadata, "spec": base | spec, "status": {"artifact": artifact}})


def labels_of(job: JobView, stage: Stage) -> dict[str, str]:
    template = build_stage_job(job, stage, 1, SETTINGS)["spec"]["template"]
    return dict(template["metadata"]["labels"])


def chooses(selector: Manifest, labels: dict[str, str]) -> bool:
    exist = all(
        expression["operator"] == "Exists" and expression["key"] in labels
        for expression in selector.get("matchExpressions", [])
    )
    return exist and selector.get("matchLabels", {}).items() <= labels.items()


def may(way: str, policies: list[Manifest], labels: dict[str, str], peer: dict[str, str] | str, port: int) -> bool:
    """Return whether a pod may reach a peer of its namespace (labels) or an address, or be reached; TCP."""
    chosen = [policy["spec"] for policy in policies if chooses(policy["spec"]["podSelector"], labels)]
    chosen = [spec for spec in chosen if way.capitalize() in spec["policyTypes"]]
    rules = [rule for spec in chosen for rule in spec.get(way, [])]
    side = "to" if way == "egress" else "from"
    return not chosen or any(
        (side not in rule or any(is_peer(entry, peer) for entry in rule[side]))
        and ("ports" not in rule or {"protocol": "TCP", "port": port} in rule["ports"])
        for rule in rules
    )


def is_peer(rule: Manifest, peer: dict[str, str] | str) -> bool:
    if isinstance(peer, dict):
        return "namespaceSelector" in rule or ("podSelector" in rule and chooses(rule["podSelector"], peer))
    if "ipBlock" not in rule:
        return False
    block, address = rule["ipBlock"], ip_address(peer)
    blocked = any(address in ip_network(network) for network in block.get("except", []))
    return address in ip_network(block["cidr"]) and not blocked


POLICIES = build_isolation("team", Network())


@pytest.mark.parametrize("stage", list(Stage))
def test_a_job_on_claims_reaches_names_and_servers_alone(stage: Stage) -> None:
    labels = labels_of(make_job(), stage)
    server = {"finetune.dev/server": "shared"}
    assert may("egress", POLICIES, labels, OUTSIDE, 53)
    assert may("egress", POLICIES, labels, server, SERVER_PORT)
    assert not may("egress", POLICIES, labels, server, 22)
    for peer in (OUTSIDE, METADATA, METADATA_6, {"app": "database"}):
        assert not may("egress", POLICIES, labels, peer, 443)


@pytest.mark.parametrize("stage", list(Stage))
def test_whoever_asks_gets_metrics_and_nothing_else(stage: Stage) -> None:
    labels = labels_of(make_job(), stage)
    for peer in (OUTSIDE, {"app": "prometheus"}, labels_of(make_job("other"), Stage.TRAIN)):
        assert may("ingress", POLICIES, labels, peer, METRICS_PORT)
        assert not may("ingress", POLICIES, labels, peer, 29500)


SECRET = {"secretRef": {"name": "token"}}


@pytest.mark.parametrize(
    ("spec", "stages"),
    [
        ({"dataset": {"train": {"uri": "https://data.example.com/train.jsonl"}}}, {Stage.PREPARE}),
        ({"model": {"uri": "hf://org/base"}}, {Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE}),
        ({"output": {"bucket": {"uri": "s3://bucket/a"} | SECRET}}, {Stage.PREPARE, Stage.EXPORT}),
        ({"tracking": {"wandb": {"project": "shop"} | SECRET}}, {Stage.TRAIN}),
        ({"tracking": {"tensorBoard": {}}}, set()),
    ],
)
def test_only_what_fetches_or_sends_gets_out_and_never_to_the_metadata(
    spec: dict[str, Any], stages: set[Stage]
) -> None:
    for stage in Stage:
        labels = labels_of(make_job(**spec), stage)
        assert may("egress", POLICIES, labels, OUTSIDE, 443) is (stage in stages)
        assert may("egress", POLICIES, labels, {"app": "object-store"}, 9000) is (stage in stages)
        assert not may("egress", POLICIES, labels, METADATA, 80)
        assert not may("egress", POLICIES, labels, METADATA_6, 80)


def test_pods_of_a_training_on_several_nodes_reach_one_another_but_no_other_training() -> None:
    job, other = make_job(compute={"nodes": 2}), make_job("other", compute={"nodes": 2})
    labels, others = labels_of(job, Stage.TRAIN), labels_of(other, Stage.TRAIN)
    policies = [*POLICIES, build_peers_policy(job), build_peers_policy(other)]
    for way in ("ingress", "egress"):
        assert may(way, policies, labels, labels, 29500)
        assert not may(way, policies, labels, others, 29500)


def test_an_administrator_blocks_more_or_isolates_nothing() -> None:
    policies = build_isolation("team", Network(blocked=["10.0.0.0/8"]))
    labels = labels_of(make_job(model={"uri": "hf://org/base"}), Stage.TRAIN)
    assert not may("egress", policies, labels, "10.1.2.3", 443)
    assert may("egress", policies, labels, METADATA_6, 443)
    assert build_isolation("team", Network.model_validate({"isolateJobs": False})) == []
    with pytest.raises(ValueError, match="blocked"):
        Network(blocked=["10.0.0.1/8"])
