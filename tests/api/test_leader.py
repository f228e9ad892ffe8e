"""Two operators and one Lease: one writes, the other takes over, and whoever was left behind does no harm.

The times of takeovers are printed, as measured: `pytest -s`. docs/high-availability.md names them.
"""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api.conftest import Operator, apply, condition_of, finetunejob, get_all, status_of
from api.forwarder import Forwarder
from api.player import Player, succeed
from cluster.control_plane import Cluster
from finetune_operator.main import LOST
from waiting import wait_for

SHORT = 6
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
        selector = f"finetune.dev/stage={stage}"
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
        is_training = pod["metadata"]["labels"]["finetune.dev/stage"] == "Train"
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

    def launch(name: str, seconds: int = 15, kubeconfig: Path = cluster.kubeconfig) -> Operator:
        directory = tmp_path / name
        directory.mkdir()
        one = Operator(kubeconfig, directory, f"--lease={namespace}", f"--lease-seconds={seconds}")
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
    seconds = stage.release()
    print(f"\nSIGTERM: the standby did the next step after {seconds:.2f} s")
    assert seconds < 2
    assert leader.wait() == 0
    assert leads(standby)
    stage.check_end()


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


@pytest.mark.parametrize(
    "last",
    [
        r"(POST|PATCH) /apis/batch/v1/namespaces/{}/jobs",
        r"(PUT|PATCH) /apis/finetune.dev/v1alpha1/namespaces/{}/.*/status",
    ],
    ids=["creation", "status"],
)
def test_a_leader_that_stood_still_between_check_and_write_does_no_harm(
    launch: Launch, cluster: Cluster, player: Player, namespace: str, tmp_path: Path, last: str
) -> None:
    names = [f"job-{number}" for number in range(6)]
    with Forwarder(cluster, tmp_path) as forwarder:
        leader = launch("a", SHORT, forwarder.kubeconfig)
        leader.wait_until_ready()
        leader, standby = leader_first(leader, launch("b", SHORT))
        pattern = re.compile(last.format(namespace).encode())
        forwarder.stop_at(lambda chunk: pattern.match(chunk) is not None)
        for name in names:
            apply(cluster, finetunejob(name, namespace))
        assert forwarder.has_stopped.wait(30)
        leader.send(signal.SIGSTOP)
        stopped = time.monotonic()
        wait_for(lambda: leads(standby), "the standby to lead", SHORT + 2)
        print(f"\nSIGSTOP, Lease of {SHORT} s: the standby led after {time.monotonic() - stopped:.2f} s")
        wait_for(lambda: all(is_completed(cluster, namespace, name) for name in names), "the end of all jobs")
        before = versions(cluster, namespace)
        forwarder.go_on()
        wait_for(lambda: forwarder.answer != b"", "an answer to the late write")
        leader.send(signal.SIGCONT)
        assert leader.wait() == LOST
        print(f"the late write was answered {forwarder.answer.decode()}")
        assert versions(cluster, namespace) == before
    trained = [one for one in get_all(cluster, "jobs", namespace) if "train" in one["metadata"]["name"]]
    assert len(trained) == len(names)


def versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return the version of everything that an operator might write."""
    found = json.loads(cluster.run_kubectl("get", WRITTEN, "-n", namespace, "-o", "json"))["items"]
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in found}


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
        assert leader.wait() == LOST
        print(f"\ncut off, Lease of {SHORT} s: the leader ended after {time.monotonic() - cut:.2f} s")
        stage.release()
        print(f"and the standby did the next step after {time.monotonic() - cut:.2f} s")
        assert time.monotonic() - cut < SHORT + 2
        forwarder.go_on()
        leader.start()
        assert leader_first(leader, standby) == (standby, leader)
        stage.check_end()
        assert standby.stop() == 0
        wait_for(lambda: leads(leader), "the first one to lead again")
