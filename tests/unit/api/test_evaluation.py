"""Which metrics, graders and gates fit one another."""

from typing import Any

import pytest
from finetune_api.evaluation import Evaluation
from pydantic import ValidationError
from unit.evaluations import CITY, gate


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metrics": ["Perplexity"]} | gate("Bleu"), "not in metrics"),
        (gate("Grader"), "grader names the grader"),
        (gate("Bleu", grader="city"), "grader names the grader"),
        ({"graders": [CITY.to_dict()]} | gate("Grader", grader="town"), "name of none of graders"),
    ],
)
def test_a_wrong_evaluation_is_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Evaluation.model_validate(wrong)
