"""What the operator's logs say of what."""

import json
import logging

import pytest
from finetune_operator.logs import JsonFormatter, soften_retries


def record(logger: str, message: str, **about: str) -> logging.LogRecord:
    made = logging.LogRecord(logger, logging.ERROR, "", 0, message, None, None)
    vars(made).update(about)
    return made


@pytest.mark.parametrize(
    ("logger", "message", "level"),
    [
        ("kopf._cogs.clients.watching", "Request attempt #1/9 failed; will retry: GET /apis -> 429", "warning"),
        ("kopf._cogs.clients.watching", "Request attempt #9/9 failed; escalating: GET /apis -> 429", "error"),
        ("finetune_operator.controller.reconcile", "requeued after 1.0 s: it will retry", "error"),
    ],
)
def test_what_kopf_tries_again_is_a_warning_until_it_gives_up(logger: str, message: str, level: str) -> None:
    made = record(logger, message)
    assert soften_retries(made)
    assert json.loads(JsonFormatter().format(made))["level"] == level


def test_a_line_names_the_object_that_it_is_about() -> None:
    line = json.loads(JsonFormatter().format(record("a", "b", kind="FineTuneJob", namespace="team", object="shop")))
    assert (line["kind"], line["namespace"], line["name"], line["message"]) == ("FineTuneJob", "team", "shop", "b")
