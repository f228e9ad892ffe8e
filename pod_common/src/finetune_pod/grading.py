"""Computes graders: what one answer is worth. Pure; the images of trainer and server bring the libraries."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from finetune_api.graders import Grader, Similarity, StringCheck, TextSimilarity, WeightedGrader

ANSWER_FIELD = "answer"
"""The field that is the reference where a grader names none; of a conversation it is the last answer."""
_ROUGE: dict[Similarity, str] = {"Rouge1": "rouge1", "Rouge2": "rouge2", "RougeL": "rougeL"}


class MissingReferenceError(Exception):
    """A row lacks the field that a grader compares with; the message names both."""


def grade(grader: Grader | WeightedGrader, answer: str, reference: Mapping[str, Any]) -> float:
    """Return what an answer is worth, from 0 to 1.

    Args:
        grader: how to tell.
        answer: what the model wrote.
        reference: the row's other fields; of a conversation `{"answer": its last answer}`.

    Raises:
        MissingReferenceError: the row lacks the field that the grader names.
    """
    if grader.string_check is not None:
        return _check_string(grader.string_check, answer, reference)
    if grader.text_similarity is not None:
        return _compare_text(grader.text_similarity, answer, reference)
    parts = grader.multi or [] if isinstance(grader, Grader) else []
    weighted = sum(part.weight * grade(part, answer, reference) for part in parts)
    return weighted / sum(part.weight for part in parts)


def check_reference(grader: Grader | WeightedGrader, reference: Mapping[str, Any]) -> None:
    """Check before any answer is there that a row has what a grader compares with.

    Raises:
        MissingReferenceError: it has not.
    """
    for part in grader.multi or [] if isinstance(grader, Grader) else []:
        check_reference(part, reference)
    if grader.string_check is not None and grader.string_check.reference is None:
        _find(reference, grader.string_check.reference_field)
    if grader.text_similarity is not None:
        _find(reference, grader.text_similarity.reference_field)


def similarity(metric: Similarity, answer: str, reference: str) -> float:
    """Return how alike two texts are, from 0 to 1."""
    if metric == "FuzzyMatch":
        from rapidfuzz import fuzz

        return fuzz.ratio(answer, reference) / 100
    if metric == "Bleu":
        from sacrebleu import sentence_bleu

        return min(sentence_bleu(answer, [reference]).score / 100, 1.0)
    return rouge(answer, reference)[metric]


def rouge(answer: str, reference: str) -> dict[Similarity, float]:
    """Return the F-measures of all three, on stemmed words (rouge_score)."""
    scores = _rouge_scorer().score(reference, answer)
    return {name: float(scores[theirs].fmeasure) for name, theirs in _ROUGE.items()}


def _check_string(check: StringCheck, answer: str, reference: Mapping[str, Any]) -> float:
    wanted = check.reference if check.reference is not None else _find(reference, check.reference_field)
    wanted, answer = wanted.strip(), answer.strip()
    match check.operation:
        case "eq":
            passed = answer == wanted
        case "ne":
            passed = answer != wanted
        case "like":
            passed = wanted in answer
        case "ilike":
            passed = wanted.casefold() in answer.casefold()
    return float(passed)


def _compare_text(compared: TextSimilarity, answer: str, reference: Mapping[str, Any]) -> float:
    found = similarity(compared.metric, answer.strip(), _find(reference, compared.reference_field).strip())
    return found if compared.pass_threshold is None else float(found >= compared.pass_threshold)


def _find(reference: Mapping[str, Any], path: str | None) -> str:
    """Return a field as text; what is no text is written as JSON."""
    value: Any = reference
    for name in (path or ANSWER_FIELD).split("."):
        if not isinstance(value, Mapping) or name not in value:
            has = ", ".join(sorted(map(str, reference))) or "none"
            raise MissingReferenceError(f"the grader compares with {path or ANSWER_FIELD}, the row's fields are {has}")
        value = value[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@lru_cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(_ROUGE.values()), use_stemmer=True)
