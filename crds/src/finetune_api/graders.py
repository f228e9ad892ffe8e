"""Graders: what an answer is worth, from 0 to 1, without code of the user's. The names are those of OpenAI's graders.

`grading` computes them, the same for the rewards of a training and for the metrics of an evaluation.
"""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.model import ApiModel, Rule, not_both

FieldPath = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=128)]
Similarity = Literal["FuzzyMatch", "Bleu", "Rouge1", "Rouge2", "RougeL"]


class StringCheck(ApiModel):
    """1 where the model's answer passes a comparison with a text, else 0; spaces at the ends do not count."""

    operation: Literal["eq", "ne", "like", "ilike"] = "eq"
    """`eq`: the answer is the reference; `ne`: it is not; `like`: it contains it; `ilike`: the same in any case."""
    reference_field: FieldPath | None = None
    """Field of the row that holds the reference, `answer.final` inside of `answer`; by default `answer`, which of a
    conversation is its last answer."""
    reference: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The reference itself, the same for every row."""

    rules = (not_both("referenceField", "reference"),)


class TextSimilarity(ApiModel):
    """How alike the model's answer and a text are."""

    metric: Similarity
    """`FuzzyMatch` (rapidfuzz's ratio), `Bleu` (sacrebleu's sentence BLEU), `Rouge1`, `Rouge2` or `RougeL`
    (F-measures of rouge_score, with stemming)."""
    reference_field: FieldPath | None = None
    """Field of the row that holds the reference; by default `answer`, which of a conversation is its last answer."""
    pass_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """With it the grade is 1 from this similarity on, and 0 below."""


class WeightedGrader(ApiModel):
    """One part of a `multi`; exactly one of its graders."""

    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How much it counts beside the others."""
    string_check: StringCheck | None = None
    """A comparison that passes or fails."""
    text_similarity: TextSimilarity | None = None
    """A likeness of texts."""

    rules = (
        Rule(
            "has(self.stringCheck) != has(self.textSimilarity)",
            "give exactly one of stringCheck and textSimilarity",
            lambda part: (part.string_check is None) != (part.text_similarity is None),
        ),
    )


class Grader(ApiModel):
    """What an answer is worth, from 0 to 1; exactly one of the kinds."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=32)]
    """Its name in reports, metrics and gates."""
    string_check: StringCheck | None = None
    """A comparison that passes or fails."""
    text_similarity: TextSimilarity | None = None
    """A likeness of texts."""
    multi: Annotated[list[WeightedGrader], Field(min_length=2, max_length=8)] | None = None
    """The weighted mean of several."""

    rules = (
        Rule(
            "[has(self.stringCheck), has(self.textSimilarity), has(self.multi)].filter(given, given).size() == 1",
            "give exactly one of stringCheck, textSimilarity and multi",
            lambda grader: [grader.string_check, grader.text_similarity, grader.multi].count(None) == 2,
        ),
    )
