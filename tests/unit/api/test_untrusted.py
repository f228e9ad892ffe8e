"""What pods say of themselves is taken over only where it can be written down and shown."""

import json

import pytest
from finetune_api.reports import parse_report
from finetune_api.routes import parse_loaded
from unit.said_by_pods import LOADED, TRAINED


@pytest.mark.parametrize("steps", [2**53, 2**63, 10**400])
def test_a_number_that_the_api_server_has_no_room_for_is_no_report(steps: int) -> None:
    training = TRAINED["training"] | {"steps": steps}
    assert parse_report(json.dumps(TRAINED | {"training": training})) is None


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_loss_that_is_no_number_is_no_report(loss: str) -> None:
    assert parse_report(json.dumps(TRAINED).replace('"loss": 1.0', f'"loss": {loss}')) is None


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
