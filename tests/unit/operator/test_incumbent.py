"""What a job's result would replace."""

from typing import Any

import pytest
from finetune_api.artifact import Incumbent
from finetune_api.finetunejob import Serving
from finetune_operator.incumbent import find_incumbent, recorded_incumbent
from finetune_operator.observe import Attempt, Stage, State
from finetune_operator.views import JobView, ServerView, view_job, view_server


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def job(name: str, letter: str) -> JobView:
    metadata = {"name": name, "namespace": "team", "uid": name, "generation": 1}
    artifact = {"uri": f"pvc://out/{name}/adapter/1", "digest": digest(letter), "bytes": 1}
    return view_job({"metadata": metadata, "spec": {}, "status": {"artifact": artifact}})


def server(*models: dict[str, Any]) -> ServerView:
    metadata = {"name": "shared", "namespace": "team", "uid": "s", "generation": 1}
    return view_server({"metadata": metadata, "spec": {}, "status": {"models": list(models)}})


def served(name: str, by: str, letter: str, pods: int = 1, message: str = "") -> dict[str, Any]:
    return {"name": name, "job": by, "digest": digest(letter), "loadedPods": pods, "message": message}


SERVING = Serving(model_name="bot", server="shared")


@pytest.mark.parametrize(
    ("models", "found"),
    [
        ([], ""),
        ([served("bot", "old", "a")], "old"),
        ([served("bot", "old", "a", pods=0)], "old"),
        ([served("bot", "old", "a", message="one pod refuses it")], "old"),
        ([served("bot", "old", "a", pods=0, message="refused")], ""),
        ([served("other", "old", "a")], ""),
        ([served("bot", "old", "b")], ""),
        ([served("bot", "gone", "a")], ""),
    ],
)
def test_the_incumbent_is_what_the_server_hosts_under_the_name(models: list[dict[str, Any]], found: str) -> None:
    incumbent = find_incumbent(SERVING, server(*models), [job("old", "a"), job("other", "c")])
    assert incumbent.job == found
    assert (incumbent.artifact is None) is (not found)


def test_the_incumbent_is_empty_where_serving_or_the_server_is_missing() -> None:
    assert find_incumbent(None, server(served("bot", "old", "a")), [job("old", "a")]) == Incumbent()
    assert find_incumbent(SERVING, None, [job("old", "a")]) == Incumbent()


def test_the_incumbent_that_was_chosen_first_stays() -> None:
    first, second = Incumbent(job="first"), Incumbent(job="second")
    attempts = [
        Attempt(Stage.EVALUATE, number, f"e{number}", State.FAILED, incumbent=one)
        for number, one in ((2, second), (1, first))
    ]
    assert recorded_incumbent(None, []) is None
    assert recorded_incumbent(None, attempts) == first
    assert recorded_incumbent(Incumbent(), attempts) == Incumbent()
