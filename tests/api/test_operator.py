"""The operator against a real API server and its controllers, with played pods: what it makes and survives."""

import shlex
import signal
from typing import Any

from api.conftest import Operator, apply, condition_of, finetunejob, get_all, modelserver, status_of
from api.player import Player, succeed
from cluster.control_plane import Cluster
from cluster.layout import ClusterError
from waiting import wait_for

OWN = {"modelName": "bot", "template": {}}


def wait_for_condition(cluster: Cluster, namespace: str, name: str, kind: str, reason: str) -> None:
    """Wait until a condition of a job is true for a reason."""
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, name), kind) == ("True", reason),
        lambda: f"{kind} of {name}: {status_of(cluster, namespace, name)}",
        60,
    )


def jobs_of(cluster: Cluster, namespace: str, stage: str) -> list[str]:
    """Return the names of the Jobs of a stage."""
    return sorted(
        job["metadata"]["name"]
        for job in get_all(cluster, "jobs", namespace)
        if job["metadata"]["labels"]["finetune.dev/stage"] == stage
    )


def test_a_job_is_prepared_trained_evaluated_and_served(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, finetunejob("job", namespace, serving=OWN))
    wait_for_condition(cluster, namespace, "job", "Ready", "Serving")
    status = status_of(cluster, namespace, "job")
    assert status["serving"] == {
        "modelName": "bot",
        "server": "job",
        "endpoint": f"http://job.{namespace}.svc/v1",
        "loadedPods": 1,
    }
    assert status["attempts"] == {"prepare": 1, "train": 1, "evaluate": 1, "export": 0, "disruptions": 0}
    server = status_of(cluster, namespace, "job", "modelserver")
    assert [(model["name"], model["job"], model["loadedPods"]) for model in server["models"]] == [("bot", "job", 1)]
    (deployment,) = get_all(cluster, "deployments", namespace)
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    claims = [claim["metadata"]["name"] for claim in get_all(cluster, "persistentvolumeclaims", namespace)]
    assert claims == ["finetune-artifacts"]


def test_a_job_waits_for_the_one_that_it_begins_with_and_then_needs_it_no_more(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, finetunejob("second", namespace, model={"uri": "finetunejob://first"}))
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, "second"), "Accepted") == ("False", "ModelNotFound"),
        lambda: f"second: {status_of(cluster, namespace, 'second')}",
    )
    apply(cluster, finetunejob("first", namespace))
    wait_for_condition(cluster, namespace, "first", "Ready", "Completed")
    artifact = status_of(cluster, namespace, "first")["artifact"]
    wait_for(lambda: "warmStart" in status_of(cluster, namespace, "second"), "what it begins with")
    cluster.run_kubectl("delete", "ftj", "first", "-n", namespace)
    wait_for_condition(cluster, namespace, "second", "Ready", "Completed")
    assert status_of(cluster, namespace, "second")["warmStart"] == {
        "job": "first",
        "model": {"uri": "pvc://models/base"},
        "artifact": artifact,
        "parentAdapter": "Train",
    }


def test_a_steady_cluster_costs_no_write(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    apply(cluster, finetunejob("job", namespace, serving=OWN))
    wait_for_condition(cluster, namespace, "job", "Ready", "Serving")
    wait_for(lambda: condition_of(status_of(cluster, namespace, "job", "modelserver"), "Ready")[0] == "True", "server")
    assert operator.stop() == 0
    before = {kind: versions(cluster, kind, namespace) for kind in ("ftj", "ms", "jobs", "deployments", "configmaps")}
    operator.start()
    wait_for(lambda: operator.metric("finetune_operator_reconcile_seconds_count") >= 2, "two reconciliations")
    assert operator.metric("finetune_operator_writes_total") == 0
    assert before == {kind: versions(cluster, kind, namespace) for kind in before}


def versions(cluster: Cluster, kind: str, namespace: str) -> dict[str, Any]:
    """Return the resource versions of all objects of a kind."""
    return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in get_all(cluster, kind, namespace)}


def test_bad_data_ends_before_training(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    message = '{"outcome": "Failed", "reason": "DatasetInvalid", "message": "line 3: not JSON"}'
    player.play(namespace, lambda _pod: (65, message))
    apply(cluster, finetunejob("job", namespace))
    wait_for_condition(cluster, namespace, "job", "Failed", "DatasetInvalid")
    assert len(jobs_of(cluster, namespace, "Prepare")) == 1
    assert not jobs_of(cluster, namespace, "Train")
    notes = [event["note"] for event in get_all(cluster, "events.events.k8s.io", namespace) if "note" in event]
    assert "line 3: not JSON" in notes


def test_a_job_above_its_budget_asks_for_no_gpu_until_it_is_approved(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, finetunejob("job", namespace, budget={"maxCost": 5}))
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, "job"), "Approved") == ("False", "BudgetExceeded"),
        lambda: str(status_of(cluster, namespace, "job")),
    )
    status = status_of(cluster, namespace, "job")
    assert (status["stage"], status["estimate"]["cost"]) == ("Approve", 9.6)
    messages = {condition["type"]: condition["message"] for condition in status["conditions"]}
    assert "3.2 GPU hours, 9.60 USD, 2 GiB of memory a GPU, above budget.maxCost of 5.00 USD" in messages["Ready"]
    assert not jobs_of(cluster, namespace, "Train")
    _, _, command = messages["Approved"].partition("approve it with: kubectl ")
    cluster.run_kubectl(*shlex.split(command))
    wait_for_condition(cluster, namespace, "job", "Ready", "Completed")
    assert condition_of(status_of(cluster, namespace, "job"), "Approved") == ("True", "ApprovedByHand")
    assert status_of(cluster, namespace, "job")["attempts"] == {
        "prepare": 1,
        "train": 1,
        "evaluate": 1,
        "export": 0,
        "disruptions": 0,
    }


def test_a_pod_that_vanishes_costs_no_retry(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    def stay_once(pod: dict[str, Any]) -> tuple[int, str] | None:
        labels = pod["metadata"]["labels"]
        first = labels["finetune.dev/stage"] == "Train" and labels["finetune.dev/attempt"] == "1"
        return None if first else succeed(pod)

    player.play(namespace, stay_once)
    apply(cluster, finetunejob("job", namespace, retries=0))
    wait_for(
        lambda: status_of(cluster, namespace, "job").get("progress", {}).get("step") == 2,
        lambda: f"progress: {status_of(cluster, namespace, 'job')}",
    )
    selector = "finetune.dev/stage=Train"
    cluster.run_kubectl("delete", "pods", "-n", namespace, "-l", selector, "--grace-period=0", "--force")
    wait_for_condition(cluster, namespace, "job", "Ready", "Completed")
    attempts = status_of(cluster, namespace, "job")["attempts"]
    assert attempts == {"prepare": 1, "train": 2, "evaluate": 1, "export": 0, "disruptions": 1}


def test_a_killed_operator_trains_once(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    released: list[bool] = []

    def wait_in_training(pod: dict[str, Any]) -> tuple[int, str] | None:
        is_training = pod["metadata"]["labels"]["finetune.dev/stage"] == "Train"
        return None if is_training and not released else succeed(pod)

    player.play(namespace, wait_in_training)
    apply(cluster, finetunejob("job", namespace))
    wait_for(lambda: bool(jobs_of(cluster, namespace, "Train")), "a training")
    operator.stop(signal.SIGKILL)
    released.append(True)
    operator.start()
    wait_for_condition(cluster, namespace, "job", "Ready", "Completed")
    assert len(jobs_of(cluster, namespace, "Train")) == 1


def test_a_foreign_server_is_left_alone(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    apply(cluster, modelserver("job", namespace, model={"uri": "pvc://models/other"}))
    apply(cluster, finetunejob("job", namespace, serving=OWN))
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, "job"), "Accepted") == ("False", "Conflict"),
        lambda: str(status_of(cluster, namespace, "job")),
    )
    assert not get_all(cluster, "jobs", namespace)


def test_a_job_waits_for_its_server(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    apply(cluster, finetunejob("job", namespace, serving={"modelName": "bot", "server": "shared"}))
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, "job"), "Accepted") == ("False", "ServerNotFound"),
        lambda: str(status_of(cluster, namespace, "job")),
    )
    apply(cluster, modelserver("shared", namespace))
    wait_for_condition(cluster, namespace, "job", "Ready", "Serving")


def test_the_number_of_pods_goes_over_to_an_autoscaler_and_back(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    def serve(**spec: Any) -> None:
        apply(cluster, modelserver("shared", namespace, **spec))

    def replicas() -> int:
        return sum(one["spec"]["replicas"] for one in get_all(cluster, "deployments", namespace))

    def most() -> list[int]:
        return [one["spec"]["maxReplicas"] for one in get_all(cluster, "horizontalpodautoscalers", namespace)]

    serve(replicas=3)
    wait_for(lambda: replicas() == 3, "three pods")
    for turn in range(2):
        serve(autoscaling={"minReplicas": 2, "maxReplicas": 5 + turn})
        wait_for(lambda: most() == [5 + turn], "the autoscaler")  # noqa: B023 - it is awaited at once
        assert replicas() == 3
        cluster.run_kubectl("scale", "deployment", "shared", "-n", namespace, "--replicas=4")
        serve(autoscaling={"minReplicas": 2, "maxReplicas": 7 + turn})
        wait_for(lambda: most() == [7 + turn], "the autoscaler")  # noqa: B023 - it is awaited at once
        assert replicas() == 4
        serve(replicas=3)
        wait_for(lambda: replicas() == 3 and most() == [3], "the three pods that are asked for again")


def test_what_the_api_server_refuses_is_told(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": namespace},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    apply(cluster, quota)
    wait_for(lambda: is_enforced(cluster, namespace), "the quota")
    apply(cluster, finetunejob("job", namespace))
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, "job"), "Ready") == ("False", "CreateRefused"),
        lambda: str(status_of(cluster, namespace, "job")),
    )


def is_enforced(cluster: Cluster, namespace: str) -> bool:
    """Tell whether a quota of no Jobs is in force."""
    try:
        cluster.run_kubectl("create", "job", "-n", namespace, "x", "--image=x", "--dry-run=server")
    except ClusterError as error:
        return "exceeded quota" in str(error)
    return False


def test_deletion_takes_the_children_along(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, finetunejob("job", namespace, serving=OWN))
    wait_for_condition(cluster, namespace, "job", "Ready", "Serving")
    cluster.run_kubectl("delete", "ftj", "-n", namespace, "job")

    def left() -> list[str]:
        kinds = "jobs,pods,configmaps,deployments,services,modelservers,persistentvolumeclaims"
        return [one["metadata"]["name"] for one in get_all(cluster, kinds, namespace)]

    wait_for(lambda: sorted(left()) == ["finetune-artifacts", "kube-root-ca.crt"], lambda: str(left()))
