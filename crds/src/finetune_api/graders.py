"""Graders, which score an answer from 0 to 1 without code of the user. The names are those of OpenAI's graders.

`finetune_pod.grading` computes them, both for the rewards of a training and for the metrics of an evaluation.
"""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule, not_both
from finetune_api.texts import DASHED, DASHED_MESSAGE, Text

FieldPath = Annotated[
    str,
    Text(
        r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$",
        "use the name of a field of the row, with a dot before a nested field, such as answer or answer.final",
        128,
    ),
]
Similarity = Literal["FuzzyMatch", "Bleu", "Rouge1", "Rouge2", "RougeL"]


class StringCheck(ApiModel):
    """Compares the answer with a text: 1 if the comparison holds, otherwise 0. Whitespace at both ends is ignored."""

    operation: Literal["eq", "ne", "like", "ilike"] = "eq"
    """`eq`: the answer equals the reference; `ne`: it does not; `like`: it contains the reference; `ilike`: like
    `like`, but case-insensitive."""
    reference_field: FieldPath | None = None
    """Field of the row that holds the reference; a dot selects a nested field, as in `answer.final`. Default: `answer`,
    which for a conversation is its last answer."""
    reference: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A fixed reference for all rows, instead of `referenceField`."""

    rules = (not_both("referenceField", "reference"),)


class TextSimilarity(ApiModel):
    """Measures the similarity of the answer and a text, from 0 to 1."""

    metric: Similarity
    """Similarity measure: `FuzzyMatch` (rapidfuzz's ratio), `Bleu` (sacrebleu's sentence BLEU), `Rouge1`, `Rouge2` or
    `RougeL` (F-measures of rouge_score, with stemming)."""
    reference_field: FieldPath | None = None
    """Field of the row that holds the reference. Default: `answer`, which for a conversation is its last answer."""
    pass_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Threshold that turns the similarity into 1 (at or above it) or 0. Default: the score is the similarity itself."""


class WeightedGrader(ApiModel):
    """One part of a `multi` grader. Set exactly one of `stringCheck` and `textSimilarity`."""

    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of this part in the mean."""
    string_check: StringCheck | None = None
    """A comparison of the answer with a text, which scores 0 or 1."""
    text_similarity: TextSimilarity | None = None
    """The similarity of the answer and a text, from 0 to 1."""

    rules = (
        Rule(
            "has(self.stringCheck) != has(self.textSimilarity)",
            "set exactly one of stringCheck and textSimilarity",
            lambda part: (part.string_check is None) != (part.text_similarity is None),
        ),
    )


class Grader(ApiModel):
    """Scores an answer from 0 to 1. Set exactly one of `stringCheck`, `textSimilarity` and `multi`."""

    name: Annotated[str, Text(DASHED, DASHED_MESSAGE, 32)]
    """Name of the grader in reports, metrics and gates."""
    string_check: StringCheck | None = None
    """A comparison of the answer with a text, which scores 0 or 1."""
    text_similarity: TextSimilarity | None = None
    """The similarity of the answer and a text, from 0 to 1."""
    multi: Annotated[list[WeightedGrader], Field(min_length=2, max_length=8)] | None = None
    """The weighted mean of several graders."""

    rules = (
        Rule(
            "[has(self.stringCheck), has(self.textSimilarity), has(self.multi)].filter(given, given).size() == 1",
            "set exactly one of stringCheck, textSimilarity and multi",
            lambda grader: [grader.string_check, grader.text_similarity, grader.multi].count(None) == 2,
        ),
    )
