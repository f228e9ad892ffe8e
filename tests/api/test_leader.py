"""Two operators and one Lease: one writes, the other takes over, and whoever was left behind does no harm.

The times of takeovers are printed, as measured: `pytest -s`. docs/high-availability.md names them.
"""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api.account import Account, read_requests
from api.conftest import Operator, apply, condition_of, finetunejob, get_all, status_of
from api.forwarder import Forwarder
from api.player import Player, succeed
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
"""Seconds of the Leases of tests whose subject is not how long the default takes."""
WRITTEN = "ftj,ms,jobs,configmaps,persistentvolumeclaims,services,deployments,events.events.k8s.io"


@dataclass
class Stage:
    """A FineTuneJob whose training ends when the test says so."""

    cluster: Cluster
    player: Player
    namespace: str

    def __post_init__(self) -> None:
        self.is_released = False
        self.player.play(self.namespace, self._play)
        apply(self.cluster, finetunejob("job", self.namespace))

    def wait_for(self, stage: str) -> None:
        """Wait until a stage has begun; look often, since the time is measured."""
        deadline = time.monotonic() + 60
        while not self.jobs(stage):
            assert time.monotonic() < deadline, status_of(self.cluster, self.namespace, "job")

    def jobs(self, stage: str) -> list[str]:
        """Return the names of the Jobs of a stage."""
        selector = f"{STAGE_LABEL}={stage}"
        return self.cluster.run_kubectl("get", "jobs", "-n", self.namespace, "-l", selector, "-o", "name").split()

    def release(self) -> float:
        """Let the training end; return the seconds until the next stage has begun."""
        self.is_released = True
        begun = time.monotonic()
        self.wait_for("Evaluate")
        return time.monotonic() - begun

    def check_end(self) -> None:
        """Wait until the job is done, with one training."""
        wait_for(lambda: is_completed(self.cluster, self.namespace, "job"), "the job's end")
        assert len(self.jobs("Train")) == 1
        assert status_of(self.cluster, self.namespace, "job")["attempts"]["train"] == 1

    def _play(self, pod: dict[str, Any]) -> tuple[int, str] | None:
        is_training = pod["metadata"]["labels"][STAGE_LABEL] == "Train"
        return None if is_training and not self.is_released else succeed(pod)


def is_completed(cluster: Cluster, namespace: str, name: str) -> bool:
    """Tell whether a FineTuneJob is done."""
    return condition_of(status_of(cluster, namespace, name), "Ready") == ("True", "Completed")


@pytest.fixture(scope="module")
def _alone(operator: Operator) -> Iterator[None]:
    """No operator but those of these tests."""
    assert operator.stop() == 0
    yield
    operator.start()


Launch = Callable[..., Operator]


@pytest.fixture
def launch(_alone: None, cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Launch]:
    """Start operators; all are stopped at the end, and none may have told of an unexpected error."""
    launched: list[Operator] = []

    def launch(name: str, seconds: int = 15, kubeconfig: Path = cluster.kubeconfig, *arguments: str) -> Operator:
        directory = tmp_path / name
        directory.mkdir()
        one = Operator(kubeconfig, directory, f"--lease={namespace}", f"--lease-seconds={seconds}", *arguments)
        launched.append(one)
        one.launch()
        return one

    yield launch
    for one in launched:
        if one.is_running:
            assert one.stop() == 0
    lines = [json.loads(line) for one in launched for line in one.log.read_text().splitlines()]
    errors = [line for line in lines if line["level"] == "error"]
    assert not errors, errors


def leader_first(*operators: Operator) -> tuple[Operator, Operator]:
    """Wait until both know everything and one leads; return that one, and the other."""
    for one in operators:
        one.wait_until_ready()
    wait_for(lambda: any(map(leads, operators)), "a leader")
    leader, standby = sorted(operators, key=leads, reverse=True)
    assert not leads(standby)
    return leader, standby


def leads(operator: Operator) -> bool:
    """Tell what an operator says of itself."""
    return operator.metric("finetune_operator_leader") == 1


def writes(operator: Operator) -> float:
    """Return how often an operator wrote."""
    return operator.metric("finetune_operator_writes_total")


def test_one_writes_and_hands_over_at_once_when_it_is_told_to_stop(
    launch: Launch, cluster: Cluster, player: Player, namespace: str
) -> None:
    leader, standby = leader_first(launch("a"), launch("b"))
    stage = Stage(cluster, player, namespace)
    stage.wait_for("Train")
    assert (writes(leader) > 0, writes(standby)) == (True, 0)
    leader.send(signal.SIGTERM)
    begun = time.monotonic()
    seconds = wait_to_lead(standby, 2)
    assert leader.wait() == 0
    print(f"\nSIGTERM: the standby led after {seconds:.2f} s, the first one ended {time.monotonic() - begun:.2f} s")
    stage.release()
    stage.check_end()


def test_a_standby_asks_for_nothing_until_the_lease_is_free(launch: Launch, cluster: Cluster, account: Account) -> None:
    before = len(lease_requests(cluster, account))

    def count(verb: str) -> int:
        return [one["verb"] for one in lease_requests(cluster, account)[before:]].count(verb)

    rights = account.kubeconfig, account.argument, f"--lease={account.name}"
    leader, standby = leader_first(*(launch(name, SHORT, *rights) for name in ("a", "b")))
    wait_for(lambda: count("watch") > 0, "a watch of the Lease")
    asked, renewed = (count("get"), count("watch")), count("update")
    wait_for(lambda: count("update") > renewed + 5, "renewals")
    assert (count("get"), count("watch")) == asked
    leader.send(signal.SIGTERM)
    wait_to_lead(standby, 2)
    assert leader.wait() == 0
    requests = [one for one in lease_requests(cluster, account) if one["verb"] != "watch"]
    read = max(number for number, one in enumerate(requests) if one["verb"] == "get")
    released, taken = (answered(requests[number]) for number in (read - 1, read + 1))
    print(f"\nwithout polling: the Lease was taken {taken - released:.3f} s after it was released")


def lease_requests(cluster: Cluster, account: Account) -> list[dict[str, Any]]:
    """Return what the operators asked about their Lease."""
    return [one for one in read_requests(cluster, account) if one.get("objectRef", {}).get("resource") == "leases"]


def answered(request: dict[str, Any]) -> float:
    """Return when the API server answered a request, in seconds."""
    return datetime.fromisoformat(request["stageTimestamp"]).timestamp()


def test_a_standby_takes_over_from_a_killed_leader(
    launch: Launch, cluster: Cluster, player: Player, namespace: str
) -> None:
    leader, standby = leader_first(launch("a"), launch("b"))
    stage = Stage(cluster, player, namespace)
    stage.wait_for("Train")
    leader.stop(signal.SIGKILL)
    seconds = stage.release()
    print(f"\nSIGKILL, Lease of 15 s: the standby did the next step after {seconds:.2f} s")
    assert seconds < 15 + 2
    assert leads(standby)
    stage.check_end()


def test_a_late_creation_by_a_leader_that_stood_still_does_no_harm(
    launch: Launch, cluster: Cluster, player: Player, namespace: str, tmp_path: Path
) -> None:
    is_creation = re.compile(rf"(POST|PATCH) /apis/batch/v1/namespaces/{namespace}/jobs")
    stand_still_at(is_creation, launch, cluster, namespace, tmp_path)


def test_a_late_status_by_a_leader_that_stood_still_does_no_harm(
    launch: Launch, cluster: Cluster, player: Player, namespace: str, tmp_path: Path
) -> None:
    is_status = re.compile(rf"(PUT|PATCH) /apis/finetune.dev/v1alpha1/namespaces/{namespace}/finetunejobs/.*/status")
    stand_still_at(is_status, launch, cluster, namespace, tmp_path)


def stand_still_at(request: re.Pattern[str], launch: Launch, cluster: Cluster, namespace: str, directory: Path) -> None:
    """Stop a leader that has just checked and sent a write, deliver it when another has done all work, and continue."""
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
        seconds = wait_to_lead(standby, SHORT + 2)
        print(f"\nSIGSTOP, Lease of {SHORT} s: the standby led after {seconds:.2f} s")
        wait_for(lambda: all(is_completed(cluster, namespace, name) for name in names), "the end of all jobs")
        before = versions(cluster, namespace)
        forwarder.go_on()
        wait_for(lambda: forwarder.answer != b"", "an answer to the late write")
        leader.send(signal.SIGCONT)
        assert leader.wait() == LEADERSHIP_LOST
        print(f"the late write was answered {forwarder.answer.decode()}")
        assert versions(cluster, namespace) == before
    trained = [one for one in get_all(cluster, "jobs", namespace) if one["metadata"]["labels"][STAGE_LABEL] == "Train"]
    assert len(trained) == len(names)


def wait_to_lead(operator: Operator, limit: float) -> float:
    """Wait until an operator leads, in less than `limit` seconds; look often, and return how long it took."""
    begun = time.monotonic()
    while not leads(operator):
        assert time.monotonic() - begun < limit
        time.sleep(0.02)
    return time.monotonic() - begun


def versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return the version of everything that an operator might write; Kubernetes repeats Events of its own."""
    found = json.loads(cluster.run_kubectl("get", WRITTEN, "-n", namespace, "-o", "json"))["items"]
    return {
        f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
        for one in found
        if one["kind"] != "Event" or one["reportingController"] == REPORTER
    }


def test_a_leader_without_an_api_server_steps_down_and_comes_back(
    launch: Launch, cluster: Cluster, player: Player, namespace: str, tmp_path: Path
) -> None:
    with Forwarder(cluster, tmp_path) as forwarder:
        first = launch("a", SHORT, forwarder.kubeconfig)
        first.wait_until_ready()
        leader, standby = leader_first(first, launch("b", SHORT))
        stage = Stage(cluster, player, namespace)
        stage.wait_for("Train")
        forwarder.stop()
        cut = time.monotonic()
        assert leader.wait() == LEADERSHIP_LOST
        print(f"\ncut off, Lease of {SHORT} s: the leader ended after {time.monotonic() - cut:.2f} s")
        wait_to_lead(standby, cut + SHORT + 2 - time.monotonic())
        print(f"and the standby led after {time.monotonic() - cut:.2f} s")
        stage.release()
        forwarder.go_on()
        leader.start()
        assert leader_first(leader, standby) == (standby, leader)
        stage.check_end()
        assert standby.stop() == 0
        wait_for(lambda: leads(leader), "the first one to lead again")
        assert leader.stop() == 0


async def test_only_the_leader_sends_anything(cluster: Cluster, namespace: str) -> None:
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
    """Write again and again."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        await connection.write_lease(lease)
