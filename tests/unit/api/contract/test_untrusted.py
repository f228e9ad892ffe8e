"""What pods say of themselves is taken over only where it can be written down and shown."""

import json

import pytest
from finetune_api.contract.reports import parse_report
from finetune_api.contract.routes import parse_loaded
from unit.pod_reports import LOADED, TRAINED


@pytest.mark.parametrize("steps", [2**53, 2**63, 10**400])
def test_a_report_with_a_number_too_large_for_the_api_server_is_refused(steps: int) -> None:
    training = TRAINED["training"] | {"steps": steps}
    assert parse_report(json.dumps(TRAINED | {"training": training})) is None


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_report_with_an_infinite_or_undefined_loss_is_refused(loss: str) -> None:
    assert parse_report(json.dumps(TRAINED).replace('"loss": 1.0', f'"loss": {loss}')) is None


def test_what_a_terminal_would_act_upon_becomes_spaces() -> None:
    message = "\u001b[2Jline 3\r\n\u009b\u202eno JSON\u0000"
    report = parse_report(json.dumps({"outcome": "Failed", "reason": "DatasetInvalid", "message": message}))
    assert report is not None
    assert report.message == " [2Jline 3    no JSON "
    answer = parse_loaded(json.dumps({"models": [LOADED | {"state": "Refused", "message": message}]}))
    assert answer is not None
    assert answer.models[0].message.isprintable()


@pytest.mark.parametrize("text", ["\ud800", json.dumps(TRAINED) + "\udfff", "[" * 4000, '{"a":' * 800])
def test_a_report_with_half_a_character_or_without_an_end_is_refused(text: str) -> None:
    assert parse_report(text) is None
