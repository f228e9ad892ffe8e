"""Builds questions of an evaluation."""

from typing import Any

from finetune_serving.evaluation.questions import Question


def build_question(**example: Any) -> Question:
    return Question(example, prompt=(1,), reference="Oslo")
