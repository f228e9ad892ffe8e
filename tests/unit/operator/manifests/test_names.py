"""Names and files of stages: what changes them, and what leaves them as they are."""

from typing import Any

import pytest
from finetune_api.contract.jobfile import JobFile
from finetune_api.jobstatus import FineTuneJobStatus
from finetune_api.stage import Stage
from finetune_operator.manifests.names import job_file, stage_job_name
from finetune_operator.state.views import JobView
from unit.specs import spec

SERVING = {"modelName": "bot", "server": "shared"}


def view(**changes: Any) -> JobView:
    return JobView("shop", "team", "u", 1, spec(**{"serving": SERVING} | changes), "", FineTuneJobStatus())


@pytest.mark.parametrize(
    "changes",
    [
        {"suspend": True},
        {"approved": True},
        {"ttlSecondsAfterFinished": 60},
        {"priority": 5},
        {"activeDeadlineSeconds": 60},
        {"serving": SERVING | {"rollout": {"canary": {}}}},
    ],
)
def test_a_field_about_when_to_work_leaves_stages_and_their_files_as_they_are(changes: dict[str, Any]) -> None:
    before, after = view(), view(**changes)
    assert stage_job_name(after, Stage.TRAIN, 1) == stage_job_name(before, Stage.TRAIN, 1)
    assert job_file(after).to_json() == job_file(before).to_json()


@pytest.mark.parametrize("changes", [{"retries": 1}, {"serving": SERVING | {"server": "other"}}])
def test_a_field_about_what_to_do_changes_the_names_of_stages(changes: dict[str, Any]) -> None:
    assert stage_job_name(view(**changes), Stage.TRAIN, 1) != stage_job_name(view(), Stage.TRAIN, 1)


def test_an_approval_leaves_stages_and_their_files_as_they_are() -> None:
    held, approved = spec(budget={"maxCost": 1}), spec(budget={"maxCost": 1}, approved=True)
    views = [JobView("shop", "team", "u", 1, spec, "", FineTuneJobStatus()) for spec in (held, approved)]
    assert len({stage_job_name(view, Stage.TRAIN, 1) for view in views}) == 1
    assert JobFile("shop", "u", held).to_json() == JobFile("shop", "u", approved).to_json()
