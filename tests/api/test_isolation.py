"""The NetworkPolicies that all jobs of a namespace share: made before the first pod, and mended while a job works."""

import json
from typing import Any

from api.conftest import Operator, apply, finetunejob, get_all
from api.player import Player
from cluster.control_plane import Cluster
from waiting import wait_for

SHARED = ("finetune-stages", "finetune-stages-outside")


def read_policies(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """Return what the shared policies say, by name."""
    found = {one["metadata"]["name"]: one["spec"] for one in get_all(cluster, "networkpolicies", namespace)}
    return {name: found.get(name) for name in SHARED}


def test_the_policies_that_jobs_share_are_there_before_pods_and_stay(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    player.play(namespace, lambda _pod: None)
    apply(cluster, finetunejob("job", namespace))
    wait_for(lambda: bool(get_all(cluster, "jobs", namespace)), "the first stage")
    wanted = read_policies(cluster, namespace)
    assert None not in wanted.values()
    patch = json.dumps({"spec": {"ingress": [{}]}})
    cluster.run_kubectl("patch", "networkpolicy", "-n", namespace, SHARED[0], "--type=merge", "-p", patch)
    cluster.run_kubectl("delete", "networkpolicy", "-n", namespace, SHARED[1])
    # Nobody owns them, so that the next job that is looked at mends them.
    apply(cluster, finetunejob("other", namespace))
    wait_for(lambda: read_policies(cluster, namespace) == wanted, lambda: str(read_policies(cluster, namespace)))
