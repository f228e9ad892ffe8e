"""Which metrics, graders and gates fit one another."""

from typing import Any

import pytest
from finetune_api.evaluation import Evaluation
from pydantic import ValidationError
from unit.evaluations import CITY, gate


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metrics": ["Perplexity"]} | gate("Bleu"), "must be one of metrics"),
        (gate("Grader"), "set grader if metric is Grader"),
        (gate("Bleu", grader="city"), "set grader if metric is Grader"),
        ({"graders": [CITY.to_dict()]} | gate("Grader", grader="town"), "the name of one of graders"),
    ],
)
def test_a_wrong_evaluation_is_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Evaluation.model_validate(wrong)
