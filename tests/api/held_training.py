"""A FineTuneJob whose training runs until a test releases it."""

import time
from dataclasses import dataclass
from typing import Any

from api.conftest import apply, condition_of, finetunejob, status_of
from api.player import Player, succeed
from cluster.control_plane import Cluster
from finetune_api.meta import STAGE_LABEL
from waiting import wait_for


@dataclass
class HeldTraining:
    """A FineTuneJob whose training runs until the test releases it."""

    cluster: Cluster
    player: Player
    namespace: str

    def __post_init__(self) -> None:
        self.is_released = False
        self.player.play(self.namespace, self._play)
        apply(self.cluster, finetunejob("job", self.namespace))

    def wait_for(self, stage: str) -> None:
        """Wait until a stage has a Job; poll without a pause, since the time is measured."""
        deadline = time.monotonic() + 60
        while not self.jobs(stage):
            assert time.monotonic() < deadline, status_of(self.cluster, self.namespace, "job")

    def jobs(self, stage: str) -> list[str]:
        """Return the names of the Jobs of a stage."""
        selector = f"{STAGE_LABEL}={stage}"
        return self.cluster.run_kubectl("get", "jobs", "-n", self.namespace, "-l", selector, "-o", "name").split()

    def release(self) -> float:
        """Let the training end; return the seconds until the next stage has a Job."""
        self.is_released = True
        started = time.monotonic()
        self.wait_for("Evaluate")
        return time.monotonic() - started

    def check_completion(self) -> None:
        """Wait until the job is completed; check that it trained once."""
        wait_for(lambda: is_completed(self.cluster, self.namespace, "job"), "the job's end")
        assert len(self.jobs("Train")) == 1
        assert status_of(self.cluster, self.namespace, "job")["attempts"]["train"] == 1

    def _play(self, pod: dict[str, Any]) -> tuple[int, str] | None:
        is_training = pod["metadata"]["labels"][STAGE_LABEL] == "Train"
        return None if is_training and not self.is_released else succeed(pod)


def is_completed(cluster: Cluster, namespace: str, name: str) -> bool:
    """Return whether a FineTuneJob is completed."""
    return condition_of(status_of(cluster, namespace, name), "Ready") == ("True", "Completed")
