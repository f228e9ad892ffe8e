"""Prepare refuses an evaluation that the data cannot provide; the message names the field and what to do."""

from pathlib import Path
from typing import Any

import pytest
from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode
from workspace import make_price_chats, make_workspace


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            {"gates": [{"metric": "ToolCallValid", "minGain": 0.1}]},
            "evaluation.gates asks for ToolCallValid, which checks tool calls; no held-out answer has one",
        ),
        ({"jsonSchema": '{"type": "objekt"}'}, "evaluation.jsonSchema is not a JSON schema: 'objekt' is not valid"),
    ],
)
def test_an_evaluation_that_the_data_cannot_provide_is_refused(
    model: Path, tmp_path: Path, evaluation: dict[str, Any], message: str
) -> None:
    workspace = make_workspace(tmp_path, model, make_price_chats(20), evaluation=evaluation)
    status, report = workspace.run("prepare")
    assert status == ExitCode.BAD_CONFIG, workspace.log
    assert report is not None
    assert report.reason is Reason.INVALID_SPEC
    assert report.message.startswith(message)
