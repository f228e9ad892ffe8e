"""Which graders are valid."""

from typing import Any

import pytest
from pydantic import ValidationError
from unit.evaluations import grader


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "exactly one of stringCheck"),
        ({"stringCheck": {}, "textSimilarity": {"metric": "Bleu"}}, "exactly one of stringCheck"),
        ({"stringCheck": {"reference": "x", "referenceField": "y"}}, "not both"),
        ({"stringCheck": {"operation": "regex"}}, "'eq', 'ne', 'like' or 'ilike'"),
        ({"multi": [{"weight": 1}, {"weight": 1}]}, "exactly one of stringCheck and textSimilarity"),
        ({"textSimilarity": {"metric": "Bleu", "referenceField": "__class__..x"}}, "such as answer"),
    ],
)
def test_wrong_graders_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        grader(**wrong)
