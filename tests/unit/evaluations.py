"""Graders and gates."""

from typing import Any

from finetune_api.graders import Grader


def grader(**kind: Any) -> Grader:
    return Grader.model_validate({"name": "one", **kind})


CITY = Grader.model_validate({"name": "city", "stringCheck": {"referenceField": "city"}})


def gate(metric: str, **more: Any) -> dict[str, Any]:
    return {"gates": [{"metric": metric, "minGain": 0} | more]}
