"""Two operators and one Lease: one writes, the other takes over, and a former leader does no harm.

`pytest -s` prints the measured times of takeovers, which docs/high-availability.md quotes.
"""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api.account import Account, read_requests
from api.conftest import Operator, apply, finetunejob, get_all
from api.forwarder import Forwarder
from api.held_training import HeldTraining, is_completed
from api.player import Player
from cluster.control_plane import Cluster
from finetune_api.meta import STAGE_LABEL
from finetune_operator.controller.events import REPORTER
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.leader import LeaderCandidate, LeaderElector, LeadershipLostError
from finetune_operator.kube.lease import SHORTEST_LEASE, LeaseTiming, build_held_lease
from finetune_operator.main import LEADERSHIP_LOST
from kubernetes.aio import client, config
from waiting import wait_for

SHORT = 5
"""Seconds of the Lease in tests that do not measure the default."""
WRITTEN_KINDS = "ftj,ms,jobs,configmaps,persistentvolumeclaims,services,deployments,events.events.k8s.io"


@pytest.fixture(scope="module")
def _alone(operator: Operator) -> Iterator[None]:
    """Stop the session's operator while these tests run theirs."""
    assert operator.stop() == 0
    yield
    operator.start()


Launch = Callable[..., Operator]


@pytest.fixture
def launch(_alone: None, cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Launch]:
    """Start operators; stop all of them at the end and check that none logged an error."""
    launched: list[Operator] = []

    def launch(name: str, seconds: int = 15, kubeconfig: Path = cluster.kubeconfig, *arguments: str) -> Operator:
        directory = tmp_path / name
        directory.mkdir()
        operator = Operator(kubeconfig, directory, f"--lease={namespace}", f"--lease-seconds={seconds}", *arguments)
        launched.append(operator)
        operator.launch()
        return operator

    yield launch
    for operator in launched:
        if operator.is_running:
            assert operator.stop() == 0
    lines = [json.loads(line) for operator in launched for line in operator.log.read_text().splitlines()]
    errors = [line for line in lines if line["level"] == "error"]
    assert not errors, errors


def leader_first(*operators: Operator) -> tuple[Operator, Operator]:
    """Wait until both are ready and one leads; return the leader and the standby."""
    for operator in operators:
        operator.wait_until_ready()
    wait_for(lambda: any(map(leads, operators)), "a leader")
    leader, standby = sorted(operators, key=leads, reverse=True)
    assert not leads(standby)
    return leader, standby


def leads(operator: Operator) -> bool:
    """Return whether an operator's metric says that it leads."""
    return operator.metric("finetune_operator_leader") == 1


def writes(operator: Operator) -> float:
    """Return the number of writes of an operator."""
    return operator.metric("finetune_operator_writes_total")


def test_a_stopped_leader_hands_over_at_once(launch: Launch, cluster: Cluster, player: Player, namespace: str) -> None:
    leader, standby = leader_first(launch("a"), launch("b"))
    training = HeldTraining(cluster, player, namespace)
    training.wait_for("Train")
    assert (writes(leader) > 0, writes(standby)) == (True, 0)
    leader.send(signal.SIGTERM)
    started = time.monotonic()
    seconds = wait_to_lead(standby)
    assert leader.wait() == 0
    assert seconds < 15, "the Lease expired instead of being released"
    print(
        f"\nSIGTERM: the standby led after {seconds:.2f} s, the first leader ended {time.monotonic() - started:.2f} s"
    )
    training.release()
    training.check_completion()


def test_a_standby_only_watches_the_lease_until_it_is_free(launch: Launch, cluster: Cluster, account: Account) -> None:
    before = len(lease_requests(cluster, account))

    def count(verb: str) -> int:
        return [request["verb"] for request in lease_requests(cluster, account)[before:]].count(verb)

    rights = account.kubeconfig, account.argument, f"--lease={account.name}"
    leader, standby = leader_first(*(launch(name, SHORT, *rights) for name in ("a", "b")))
    wait_for(lambda: count("watch") > 0, "a watch of the Lease")
    reads, renewed = (count("get"), count("watch")), count("update")
    wait_for(lambda: count("update") > renewed + 5, "renewals")
    assert (count("get"), count("watch")) == reads
    leader.send(signal.SIGTERM)
    wait_to_lead(standby)
    assert leader.wait() == 0
    requests = [request for request in lease_requests(cluster, account) if request["verb"] != "watch"]
    last_read = max(number for number, request in enumerate(requests) if request["verb"] == "get")
    released, taken = (answer_time(requests[number]) for number in (last_read - 1, last_read + 1))
    print(f"\nwithout polling: the Lease was taken {taken - released:.3f} s after it was released")


def lease_requests(cluster: Cluster, account: Account) -> list[dict[str, Any]]:
    """Return the operators' requests for their Lease."""
    return [
        request
        for request in read_requests(cluster, account)
        if request.get("objectRef", {}).get("resource") == "leases"
    ]


def answer_time(request: dict[str, Any]) -> float:
    """Return when the API server answered a request, in seconds."""
    return datetime.fromisoformat(request["stageTimestamp"]).timestamp()


def test_a_standby_takes_over_from_a_killed_leader(
    launch: Launch, cluster: Cluster, player: Player, namespace: str
) -> None:
    leader, standby = leader_first(launch("a"), launch("b"))
    training = HeldTraining(cluster, player, namespace)
    training.wait_for("Train")
    leader.stop(signal.SIGKILL)
    seconds = training.release()
    print(f"\nSIGKILL, Lease of 15 s: the standby started the next stage after {seconds:.2f} s")
    assert leads(standby)
    training.check_completion()


def test_a_late_creation_by_a_paused_leader_does_no_harm(
    launch: Launch, cluster: Cluster, player: Player, namespace: str, tmp_path: Path
) -> None:
    is_creation = re.compile(rf"(POST|PATCH) /apis/batch/v1/namespaces/{namespace}/jobs")
    pause_leader_at(is_creation, launch, cluster, namespace, tmp_path)


def test_a_late_status_by_a_paused_leader_does_no_harm(
    launch: Launch, cluster: Cluster, player: Player, namespace: str, tmp_path: Path
) -> None:
    is_status = re.compile(rf"(PUT|PATCH) /apis/finetune.dev/v1alpha1/namespaces/{namespace}/finetunejobs/.*/status")
    pause_leader_at(is_status, launch, cluster, namespace, tmp_path)


def pause_leader_at(
    request: re.Pattern[str], launch: Launch, cluster: Cluster, namespace: str, directory: Path
) -> None:
    """Pause a leader between its check and its write; deliver the write after a standby did all the work."""
    names = [f"job-{number}" for number in range(3)]
    with Forwarder(cluster, directory) as forwarder:
        leader = launch("a", SHORT, forwarder.kubeconfig)
        leader.wait_until_ready()
        leader, standby = leader_first(leader, launch("b", SHORT))
        forwarder.stop_at(lambda chunk: request.match(chunk.decode(errors="replace")) is not None)
        for name in names:
            apply(cluster, finetunejob(name, namespace))
        assert forwarder.has_stopped.wait(30)
        leader.send(signal.SIGSTOP)
        seconds = wait_to_lead(standby)
        print(f"\nSIGSTOP, Lease of {SHORT} s: the standby led after {seconds:.2f} s")
        wait_for(lambda: all(is_completed(cluster, namespace, name) for name in names), "the end of all jobs")
        before = list_versions(cluster, namespace)
        forwarder.resume()
        wait_for(lambda: forwarder.answer != b"", "an answer to the late write")
        leader.send(signal.SIGCONT)
        assert leader.wait() == LEADERSHIP_LOST
        print(f"answer to the late write: {forwarder.answer.decode()}")
        assert list_versions(cluster, namespace) == before
    trained = [job for job in get_all(cluster, "jobs", namespace) if job["metadata"]["labels"][STAGE_LABEL] == "Train"]
    assert len(trained) == len(names)


def wait_to_lead(operator: Operator) -> float:
    """Wait until an operator leads; return the seconds that it took."""
    started = time.monotonic()
    while not leads(operator):
        assert time.monotonic() - started < 60
        time.sleep(0.02)
    return time.monotonic() - started


def list_versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return the resource versions of all objects that an operator may write, without Events of Kubernetes itself."""
    objects = json.loads(cluster.run_kubectl("get", WRITTEN_KINDS, "-n", namespace, "-o", "json"))["items"]
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for item in objects
        if item["kind"] != "Event" or item["reportingController"] == REPORTER
    }


def test_a_leader_without_an_api_server_stops_and_can_lead_again(
    launch: Launch, cluster: Cluster, player: Player, namespace: str, tmp_path: Path
) -> None:
    with Forwarder(cluster, tmp_path) as forwarder:
        first = launch("a", SHORT, forwarder.kubeconfig)
        first.wait_until_ready()
        leader, standby = leader_first(first, launch("b", SHORT))
        training = HeldTraining(cluster, player, namespace)
        training.wait_for("Train")
        forwarder.stop()
        cut = time.monotonic()
        assert leader.wait() == LEADERSHIP_LOST
        print(f"\ncut off, Lease of {SHORT} s: the leader ended after {time.monotonic() - cut:.2f} s")
        wait_to_lead(standby)
        print(f"and the standby led after {time.monotonic() - cut:.2f} s")
        training.release()
        forwarder.resume()
        leader.start()
        assert leader_first(leader, standby) == (standby, leader)
        training.check_completion()
        assert standby.stop() == 0
        wait_for(lambda: leads(leader), "the former leader to lead again")
        assert leader.stop() == 0


async def test_only_the_leader_sends_writes(cluster: Cluster, namespace: str) -> None:
    def claim(name: str) -> dict[str, Any]:
        return build_held_lease(None, namespace, name, "a", SHORTEST_LEASE)

    configuration = client.Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        connection = KubeClient(api)
        elector = LeaderElector(connection, LeaderCandidate(namespace, "lease", "a", LeaseTiming(SHORTEST_LEASE)))
        fenced = connection.fenced(elector.check)
        with pytest.raises(LeadershipLostError):
            await fenced.write_lease(claim("before"))
        await elector.acquire()
        assert await fenced.write_lease(claim("meanwhile")) is not None
        with pytest.raises(LeadershipLostError):
            await write_for(SHORTEST_LEASE, fenced, claim("meanwhile"))
        with pytest.raises(LeadershipLostError):
            await fenced.write_lease(claim("after"))
    names = cluster.run_kubectl("get", "leases", "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}").split()
    assert names == ["lease", "meanwhile"]


async def write_for(seconds: float, connection: KubeClient, lease: dict[str, Any]) -> None:
    """Write the Lease repeatedly for some seconds."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        await connection.write_lease(lease)
