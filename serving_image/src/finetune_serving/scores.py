"""Scores of one answer against its reference. Pure."""

import re
import string
from functools import lru_cache
from typing import Any


def normalise(text: str) -> str:
    """Return the text in lower case without punctuation, articles and extra spaces (SQuAD's evaluation script)."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, reference: str) -> float:
    """Return 1 where both are the same after normalisation, else 0."""
    return float(normalise(answer) == normalise(reference))


def rouge_l(answer: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of stemmed words (rouge_score)."""
    return float(_scorer().score(reference, answer)["rougeL"].fmeasure)


@lru_cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)
