"""The lifecycles of FineTuneJobs and ModelServers that run with faults: the actions of a user, and of the pods."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from api.player import Pod, fail, fail_gates, succeed
from faults.world import Scene, User
from finetune_api.meta import ATTEMPT_LABEL, SERVER_LABEL, STAGE_LABEL

_BASE = {"uri": "pvc://finetune-artifacts/base"}
"""On the artifacts claim: with another claim the first job replaces the pods of its server, and where it is evaluated
would depend on timing."""
_OWN = {"modelName": "bot", "template": {}}
_SHARED = {"modelName": "bot", "server": "shared"}
_CANARY = _SHARED | {"rollout": {"canary": {"steps": [{"weight": 50, "seconds": 1}]}}}


@dataclass(frozen=True)
class Lifecycle:
    """A lifecycle from the first manifest to a stable end."""

    name: str
    run: Callable[[User], Awaitable[None]]
    """The actions of the user; the pods behave as `User.part` says."""
    by_chance: tuple[str, ...] = ()
    """Reasons of events that depend on timing."""
    starts_as: str = ""
    """The lifecycle that equals its start: faults of that start are tested there."""


def _job(**spec: Any) -> dict[str, Any]:
    return {
        "model": _BASE,
        "dataset": {"train": {"uri": "configmap://data/train.jsonl"}},
        "method": {"sft": {}},
        "adapter": {"lora": {}},
    } | spec


def _stage(pod: Pod) -> tuple[str, str]:
    labels = pod["metadata"]["labels"]
    return labels[STAGE_LABEL], labels[ATTEMPT_LABEL]


def _trains(scene: Scene) -> bool:
    """Return whether the pod of a training is running."""
    pods = scene.find("Pod")
    return any(
        pod["metadata"]["labels"].get(STAGE_LABEL) == "Train" and pod["status"]["phase"] == "Running" for pod in pods
    )


async def _serve(user: User) -> None:
    await user.create("FineTuneJob", "job", _job(serving=_OWN))
    await user.until_condition("job", "Ready", "Serving")


async def _bad_data(user: User) -> None:
    user.part.script = lambda _: fail("DatasetInvalid", "line 3: not JSON", 65)
    await user.create("FineTuneJob", "job", _job())
    await user.until_condition("job", "Failed", "DatasetInvalid")


async def _retry(user: User) -> None:
    user.part.script = lambda pod: (1, "") if _stage(pod) == ("Train", "1") else succeed(pod)
    await user.create("FineTuneJob", "job", _job())
    await user.until_condition("job", "Ready", "Completed")


async def _gates(user: User) -> None:
    user.part.script = lambda pod: fail_gates() if _stage(pod)[0] == "Evaluate" else succeed(pod)
    await user.create("FineTuneJob", "job", _job())
    await user.until_condition("job", "Failed", "GatesFailed")


async def _refused(user: User) -> None:
    user.part.refused["job"] = "its rank is above the server's"
    await user.create("FineTuneJob", "job", _job(serving=_OWN))
    await user.until_condition("job", "Served", "AdapterRefused", status="False")


async def _deleted(user: User) -> None:
    user.part.script = lambda pod: None if _stage(pod)[0] == "Train" else succeed(pod)
    await user.create("FineTuneJob", "job", _job(serving=_OWN))
    await user.until(_trains, "a training")
    await user.until_condition("job", "Trained", "Training", status="False")
    await user.delete("FineTuneJob", "job")
    await user.until(lambda scene: not list(scene.find("Job")), "the deletion of all Jobs")


async def _shared(user: User) -> None:
    """Two versions of one name on a server, then a rollback to the first by a pin."""
    await _serve_first_job(user)
    await user.create("FineTuneJob", "second", _job(serving=_SHARED))
    await user.until_condition("second", "Ready", "Serving")
    await user.change("ModelServer", "shared", {"pins": {"bot": "first"}})
    await user.until_condition("first", "Ready", "Serving")
    await user.until_condition("second", "Served", "Superseded", status="False")


async def _canary(user: User) -> None:
    await _serve_first_job(user)
    await user.create("FineTuneJob", "second", _job(serving=_CANARY))
    await user.until_condition("second", "Ready", "Serving")
    await user.until_condition("first", "Served", "Superseded", status="False")


async def _rolled(user: User) -> None:
    """A server's pods are replaced while a job serves on them."""
    await _serve_first_job(user)
    await user.change("ModelServer", "shared", {"engine": {"maxModelLen": 512}})
    await user.until(lambda scene: all(map(_is_new, scene.find("Pod"))), "new pods alone")


def _is_new(pod: Pod) -> bool:
    """Return whether a pod belongs to a stage, or to a server with the changed engine."""
    return SERVER_LABEL not in pod["metadata"]["labels"] or "maxModelLen" in str(pod["spec"]["containers"])


async def _serve_first_job(user: User) -> None:
    """Serve a first job on a running server; the server runs first, since only then does it evaluate the job."""
    await user.create("ModelServer", "shared", {"model": _BASE})
    await user.until(_is_ready, "the server")
    await user.create("FineTuneJob", "first", _job(serving=_SHARED))
    await user.until_condition("first", "Ready", "Serving")


def _is_ready(scene: Scene) -> bool:
    server = scene.objects.get(("ModelServer", "shared"), {})
    return bool(server.get("status", {}).get("readyReplicas"))


async def _approved(user: User) -> None:
    await user.create("FineTuneJob", "job", _job(budget={"maxCost": 5}))
    await user.until_condition("job", "Approved", "BudgetExceeded", status="False")
    await user.change("FineTuneJob", "job", {"approved": True})
    await user.until_condition("job", "Ready", "Completed")


async def _again(user: User) -> None:
    """A job is deleted while it trains, and created again at once with the same name and another spec."""
    user.part.script = lambda pod: None if _stage(pod)[0] == "Train" else succeed(pod)
    await user.create("FineTuneJob", "job", _job(serving=_OWN))
    await user.until(_trains, "a training")
    await user.until_condition("job", "Trained", "Training", status="False")
    await user.delete("FineTuneJob", "job")
    user.part.script = succeed
    await user.create("FineTuneJob", "job", _job(serving=_OWN, retries=1))
    await user.until_condition("job", "Ready", "Serving")


async def _server_again(user: User) -> None:
    """A served job is deleted with its server, and both are created again with the same names."""
    await _serve(user)
    await user.delete("FineTuneJob", "job")
    await user.create("FineTuneJob", "job", _job(serving=_OWN, retries=1))
    await user.until_condition("job", "Ready", "Serving")


async def _suspended(user: User) -> None:
    """A job is suspended while it trains, and resumed: a second attempt continues."""
    user.part.script = lambda pod: None if _stage(pod)[0] == "Train" else succeed(pod)
    await user.create("FineTuneJob", "job", _job())
    await user.until(_trains, "a training")
    await user.change("FineTuneJob", "job", {"suspend": True})
    await user.until_condition("job", "Suspended", "Suspended")
    user.part.script = succeed
    await user.change("FineTuneJob", "job", {"suspend": False})
    await user.until_condition("job", "Ready", "Completed")


LIFECYCLES = {
    lifecycle.name: lifecycle
    for lifecycle in (
        Lifecycle("serve", _serve),
        Lifecycle("bad-data", _bad_data),
        Lifecycle("retry", _retry),
        Lifecycle("gates", _gates),
        Lifecycle("refused", _refused),
        Lifecycle("deleted", _deleted, ("Succeeded", "WithinBudget", "Training")),
        Lifecycle("server", _serve_first_job),
        Lifecycle("shared", _shared, ("Deploying",), starts_as="server"),
        Lifecycle("canary", _canary, starts_as="server"),
        Lifecycle("rolled", _rolled, starts_as="server"),
        Lifecycle("approved", _approved),
        Lifecycle("again", _again, ("Conflict", "Stopping")),
        Lifecycle("server-again", _server_again, ("Conflict", "Stopping")),
        Lifecycle("suspended", _suspended, ("Stopping",)),
    )
}
