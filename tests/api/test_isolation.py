"""The network policies that the jobs of a namespace share: they exist before the first pod and are restored."""

import json
from typing import Any

from api.conftest import Operator, apply, finetunejob, get_all
from api.player import Player
from cluster.control_plane import Cluster
from waiting import wait_for

SHARED = ("finetune-stages", "finetune-stages-outside")


def read_policies(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """Return the spec of each shared policy by name; None where it is missing."""
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in get_all(cluster, "networkpolicies", namespace)}
    return {name: policies.get(name) for name in SHARED}


def test_shared_policies_exist_before_pods_and_are_restored(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    player.play(namespace, lambda _pod: None)
    apply(cluster, finetunejob("job", namespace))
    wait_for(lambda: bool(get_all(cluster, "jobs", namespace)), "the first stage")
    expected = read_policies(cluster, namespace)
    assert None not in expected.values()
    patch = json.dumps({"spec": {"ingress": [{}]}})
    cluster.run_kubectl("patch", "networkpolicy", "-n", namespace, SHARED[0], "--type=merge", "-p", patch)
    cluster.run_kubectl("delete", "networkpolicy", "-n", namespace, SHARED[1])
    # The policies have no owner: the next reconciliation of any job restores them.
    apply(cluster, finetunejob("other", namespace))
    wait_for(lambda: read_policies(cluster, namespace) == expected, lambda: str(read_policies(cluster, namespace)))
