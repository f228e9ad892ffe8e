"""What pods say of themselves is taken over only where it can be written down and shown."""

import json
from typing import Any

import pytest
from finetune_api.reports import parse_report
from finetune_api.routes import MAX_LOADED, MOST_ROUTES, parse_loaded

DIGEST = "sha256:" + "a" * 64
TRAINED: dict[str, Any] = {
    "outcome": "Succeeded",
    "reason": "Succeeded",
    "training": {"steps": 5, "loss": 1.0, "seconds": 2.0},
    "artifact": {"uri": "pvc://out/job-0123/adapter/1", "digest": DIGEST, "bytes": 1},
}
LOADED = {"modelName": "bot", "job": "job", "digest": DIGEST, "state": "Loaded"}


def test_a_report_is_taken_over() -> None:
    assert parse_report(json.dumps(TRAINED)) is not None


@pytest.mark.parametrize("steps", [2**53, 2**63, 10**400])
def test_a_number_that_the_api_server_has_no_room_for_is_no_report(steps: int) -> None:
    training = TRAINED["training"] | {"steps": steps}
    assert parse_report(json.dumps(TRAINED | {"training": training})) is None


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_loss_that_is_no_number_is_no_report(loss: str) -> None:
    assert parse_report(json.dumps(TRAINED).replace('"loss": 1.0', f'"loss": {loss}')) is None


@pytest.mark.parametrize(
    "uri", ["", "nonsense", "file:///etc/passwd", "hf://org/name", "pvc://out", "pvc://out/../secret", "pvc://out/a\n"]
)
def test_an_artifact_lies_on_a_claim(uri: str) -> None:
    artifact = TRAINED["artifact"] | {"uri": uri}
    assert parse_report(json.dumps(TRAINED | {"artifact": artifact})) is None


def test_nothing_that_a_terminal_acts_upon_is_taken_over() -> None:
    message = "\u001b[2Jline 3\r\n\u009b\u202eno JSON\u0000"
    report = parse_report(json.dumps({"outcome": "Failed", "reason": "DatasetInvalid", "message": message}))
    assert report is not None
    assert report.message == " [2Jline 3    no JSON "
    answer = parse_loaded(json.dumps({"models": [LOADED | {"state": "Refused", "message": message}]}))
    assert answer is not None
    assert answer.models[0].message.isprintable()


@pytest.mark.parametrize("text", ["\ud800", json.dumps(TRAINED) + "\udfff", "[" * 4000, '{"a":' * 800])
def test_what_is_no_text_or_has_no_end_is_no_report(text: str) -> None:
    assert parse_report(text) is None


def test_an_answer_is_as_long_as_two_versions_of_every_name_and_no_longer() -> None:
    assert parse_loaded(json.dumps({"models": [LOADED] * MOST_ROUTES})) is not None
    assert parse_loaded(json.dumps({"models": [LOADED] * (MOST_ROUTES + 1)})) is None
    assert parse_loaded(json.dumps({"models": [LOADED]}) + " " * MAX_LOADED) is None
