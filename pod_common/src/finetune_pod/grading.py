"""Computes graders: the score of one answer. No I/O."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from finetune_api.graders import Grader, Similarity, StringCheck, TextSimilarity, WeightedGrader

ANSWER_FIELD = "answer"
"""The reference field if a grader names none. In conversations, it is the last answer."""
_ROUGE: dict[Similarity, str] = {"Rouge1": "rouge1", "Rouge2": "rouge2", "RougeL": "rougeL"}


class MissingReferenceError(Exception):
    """A row does not have the field that a grader needs."""


def grade(grader: Grader | WeightedGrader, answer: str, reference: Mapping[str, Any]) -> float:
    """Return the score of an answer, from 0 to 1.

    Args:
        grader: how to score.
        answer: of the model.
        reference: the row's other fields; for a conversation `{"answer": its last answer}`.

    Raises:
        MissingReferenceError: the row does not have the field that the grader names.
    """
    if grader.string_check is not None:
        return _check_string(grader.string_check, answer, reference)
    if grader.text_similarity is not None:
        return _compare_text(grader.text_similarity, answer, reference)
    parts = grader.multi or [] if isinstance(grader, Grader) else []
    weighted = sum(part.weight * grade(part, answer, reference) for part in parts)
    return weighted / sum(part.weight for part in parts)


def check_reference(grader: Grader | WeightedGrader, reference: Mapping[str, Any]) -> None:
    """Check that a row has the fields that a grader needs, before there is an answer.

    Raises:
        MissingReferenceError: it does not have one of them.
    """
    for part in grader.multi or [] if isinstance(grader, Grader) else []:
        check_reference(part, reference)
    if grader.string_check is not None and grader.string_check.reference is None:
        _get_field(reference, grader.string_check.reference_field)
    if grader.text_similarity is not None:
        _get_field(reference, grader.text_similarity.reference_field)


def similarity(metric: Similarity, answer: str, reference: str) -> float:
    """Return the similarity of two texts, from 0 to 1."""
    if metric == "FuzzyMatch":
        from rapidfuzz import fuzz

        return fuzz.ratio(answer, reference) / 100
    if metric == "Bleu":
        from sacrebleu import sentence_bleu

        return min(sentence_bleu(answer, [reference]).score / 100, 1.0)
    return rouge(answer, reference)[metric]


def rouge(answer: str, reference: str) -> dict[Similarity, float]:
    """Return the F-measures of all three ROUGE metrics, on stemmed words (rouge_score)."""
    scores = _rouge_scorer().score(reference, answer)
    return {name: float(scores[rouge_name].fmeasure) for name, rouge_name in _ROUGE.items()}


def _check_string(check: StringCheck, answer: str, reference: Mapping[str, Any]) -> float:
    expected = check.reference if check.reference is not None else _get_field(reference, check.reference_field)
    expected, answer = expected.strip(), answer.strip()
    match check.operation:
        case "eq":
            passed = answer == expected
        case "ne":
            passed = answer != expected
        case "like":
            passed = expected in answer
        case "ilike":
            passed = expected.casefold() in answer.casefold()
    return float(passed)


def _compare_text(settings: TextSimilarity, answer: str, reference: Mapping[str, Any]) -> float:
    score = similarity(settings.metric, answer.strip(), _get_field(reference, settings.reference_field).strip())
    return score if settings.pass_threshold is None else float(score >= settings.pass_threshold)


def _get_field(reference: Mapping[str, Any], path: str | None) -> str:
    """Return a field as text; other values than strings as JSON."""
    value: Any = reference
    for name in (path or ANSWER_FIELD).split("."):
        if not isinstance(value, Mapping) or name not in value:
            fields = ", ".join(sorted(map(str, reference))) or "none"
            raise MissingReferenceError(
                f"the grader needs the field {path or ANSWER_FIELD}, the row's fields are {fields}"
            )
        value = value[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@lru_cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(_ROUGE.values()), use_stemmer=True)
