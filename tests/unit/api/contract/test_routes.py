"""What a server's pods answer about their routes."""

import json

from finetune_api.contract.routes import MAX_LOADED_BYTES, MAX_ROUTES, parse_loaded
from unit.pod_reports import LOADED


def test_an_answer_is_as_long_as_two_versions_of_every_name_and_no_longer() -> None:
    assert parse_loaded(json.dumps({"models": [LOADED] * MAX_ROUTES})) is not None
    assert parse_loaded(json.dumps({"models": [LOADED] * (MAX_ROUTES + 1)})) is None
    assert parse_loaded(json.dumps({"models": [LOADED]}) + " " * MAX_LOADED_BYTES) is None
