"""The operator on a real API server with its controllers and simulated pods: from a job to a served model."""

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


def list_jobs(cluster: Cluster, namespace: str, stage: str) -> list[str]:
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


def test_a_job_waits_for_its_parent_job_and_then_outlives_it(
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
    wait_for(lambda: "warmStart" in status_of(cluster, namespace, "second"), "the warm start")
    cluster.run_kubectl("delete", "ftj", "first", "-n", namespace)
    wait_for_condition(cluster, namespace, "second", "Ready", "Completed")
    assert status_of(cluster, namespace, "second")["warmStart"] == {
        "job": "first",
        "model": {"uri": "pvc://models/base"},
        "artifact": artifact,
        "parentAdapter": "Train",
    }


def test_a_restart_in_a_steady_cluster_writes_nothing(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, finetunejob("job", namespace, serving=OWN))
    wait_for_condition(cluster, namespace, "job", "Ready", "Serving")
    wait_for(lambda: condition_of(status_of(cluster, namespace, "job", "modelserver"), "Ready")[0] == "True", "server")
    assert operator.stop() == 0
    before = {
        kind: list_versions(cluster, kind, namespace) for kind in ("ftj", "ms", "jobs", "deployments", "configmaps")
    }
    operator.start()
    wait_for(lambda: operator.metric("finetune_operator_reconcile_seconds_count") >= 2, "two reconciliations")
    assert operator.metric("finetune_operator_writes_total") == 0
    assert before == {kind: list_versions(cluster, kind, namespace) for kind in before}


def list_versions(cluster: Cluster, kind: str, namespace: str) -> dict[str, Any]:
    """Return the resource versions of all objects of a kind."""
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in get_all(cluster, kind, namespace)}


def test_a_job_with_bad_data_fails_before_training(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    message = '{"outcome": "Failed", "reason": "DatasetInvalid", "message": "line 3: not JSON"}'
    player.play(namespace, lambda _pod: (65, message))
    apply(cluster, finetunejob("job", namespace))
    wait_for_condition(cluster, namespace, "job", "Failed", "DatasetInvalid")
    assert len(list_jobs(cluster, namespace, "Prepare")) == 1
    assert not list_jobs(cluster, namespace, "Train")
    notes = [event["note"] for event in get_all(cluster, "events.events.k8s.io", namespace) if "note" in event]
    assert "line 3: not JSON" in notes


def test_a_job_above_its_budget_does_not_train_until_it_is_approved(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, finetunejob("job", namespace, budget={"maxCost": 5}, compute={"resources": {"gpus": 1}}))
    wait_for(
        lambda: condition_of(status_of(cluster, namespace, "job"), "Approved") == ("False", "BudgetExceeded"),
        lambda: str(status_of(cluster, namespace, "job")),
    )
    status = status_of(cluster, namespace, "job")
    assert (status["stage"], status["estimate"]["cost"]) == ("Approve", 9.6)
    messages = {condition["type"]: condition["message"] for condition in status["conditions"]}
    assert "3.2 GPU hours, 9.60 USD, 2 GiB of memory a GPU, above budget.maxCost of 5.00 USD" in messages["Ready"]
    assert not list_jobs(cluster, namespace, "Train")
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


def test_a_deleted_pod_costs_no_retry(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
    def keep_first_training(pod: dict[str, Any]) -> tuple[int, str] | None:
        labels = pod["metadata"]["labels"]
        is_first = labels["finetune.dev/stage"] == "Train" and labels["finetune.dev/attempt"] == "1"
        return None if is_first else succeed(pod)

    player.play(namespace, keep_first_training)
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


def test_a_job_trains_once_although_the_operator_is_killed(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    released: list[bool] = []

    def wait_in_training(pod: dict[str, Any]) -> tuple[int, str] | None:
        is_training = pod["metadata"]["labels"]["finetune.dev/stage"] == "Train"
        return None if is_training and not released else succeed(pod)

    player.play(namespace, wait_in_training)
    apply(cluster, finetunejob("job", namespace))
    wait_for(lambda: bool(list_jobs(cluster, namespace, "Train")), "a training")
    operator.stop(signal.SIGKILL)
    released.append(True)
    operator.start()
    wait_for_condition(cluster, namespace, "job", "Ready", "Completed")
    assert len(list_jobs(cluster, namespace, "Train")) == 1


def test_a_foreign_server_is_not_changed(cluster: Cluster, operator: Operator, player: Player, namespace: str) -> None:
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


def test_an_autoscaler_takes_over_the_number_of_pods_and_gives_it_back(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    def serve(**spec: Any) -> None:
        apply(cluster, modelserver("shared", namespace, **spec))

    def replicas() -> int:
        return sum(deployment["spec"]["replicas"] for deployment in get_all(cluster, "deployments", namespace))

    def maximum() -> list[int]:
        return [scaler["spec"]["maxReplicas"] for scaler in get_all(cluster, "horizontalpodautoscalers", namespace)]

    serve(replicas=3)
    wait_for(lambda: replicas() == 3, "three pods")
    for turn in range(2):
        serve(autoscaling={"minReplicas": 2, "maxReplicas": 5 + turn})
        wait_for(lambda: maximum() == [5 + turn], "the autoscaler")  # noqa: B023 - waited for here
        assert replicas() == 3
        cluster.run_kubectl("scale", "deployment", "shared", "-n", namespace, "--replicas=4")
        serve(autoscaling={"minReplicas": 2, "maxReplicas": 7 + turn})
        wait_for(lambda: maximum() == [7 + turn], "the autoscaler")  # noqa: B023 - waited for here
        assert replicas() == 4
        serve(replicas=3)
        wait_for(lambda: replicas() == 3 and maximum() == [3], "three pods without an autoscaler")


def test_a_creation_that_the_api_server_refuses_is_reported(
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
    """Return whether the quota that forbids Jobs is in force."""
    try:
        cluster.run_kubectl("create", "job", "-n", namespace, "x", "--image=x", "--dry-run=server")
    except ClusterError as error:
        return "exceeded quota" in str(error)
    return False


def test_deletion_of_a_job_deletes_its_children(
    cluster: Cluster, operator: Operator, player: Player, namespace: str
) -> None:
    apply(cluster, finetunejob("job", namespace, serving=OWN))
    wait_for_condition(cluster, namespace, "job", "Ready", "Serving")
    cluster.run_kubectl("delete", "ftj", "-n", namespace, "job")

    def remaining() -> list[str]:
        kinds = "jobs,pods,configmaps,deployments,services,modelservers,persistentvolumeclaims"
        return [item["metadata"]["name"] for item in get_all(cluster, kinds, namespace)]

    wait_for(lambda: sorted(remaining()) == ["finetune-artifacts", "kube-root-ca.crt"], lambda: str(remaining()))
