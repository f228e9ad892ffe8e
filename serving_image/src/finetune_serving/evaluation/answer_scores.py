"""Scores of a single answer: against its reference, a JSON schema, or the tools that it may call. No I/O."""

import json
import re
import string
from collections import Counter
from functools import lru_cache
from typing import Any, NoReturn

from finetune_pod.toolcalls import ToolFormat


def normalize(text: str) -> str:
    """Return the text in lower case without punctuation, articles and extra spaces (SQuAD's evaluation script)."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, reference: str) -> float:
    """Return 1 if both are equal after normalization, else 0."""
    return float(normalize(answer) == normalize(reference))


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of the normalized words (SQuAD's evaluation script)."""
    words, reference_words = normalize(answer).split(), normalize(reference).split()
    if not words or not reference_words:
        return float(words == reference_words)
    shared = sum((Counter(words) & Counter(reference_words)).values())
    return 2 * shared / (len(words) + len(reference_words))


def bleu_statistics(answer: str, reference: str) -> tuple[int, ...]:
    """Return the 10 statistics of an answer whose sums give the BLEU of a corpus (sacrebleu).

    They are the lengths of answer and reference in words, then for n-grams of 1 to 4 words the number of matches (4
    values) and the number of n-grams (4 values).
    """
    score = _bleu().sentence_score(answer, [reference])
    return (score.sys_len, score.ref_len, *score.counts, *score.totals)


def json_valid(answer: str, schema: dict[str, Any] | None) -> float:
    """Return 1 if the answer is JSON, and valid against the schema if there is one; else 0."""
    try:
        value = json.loads(answer, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return 0.0
    return float(schema is None or _is_valid(value, schema))


def tool_call_valid(raw: str, tools: list[dict[str, Any]], tool_format: ToolFormat) -> float:
    """Return 1 if the answer calls only declared tools, with arguments valid against their schemas; else 0.

    Args:
        raw: the answer with its special tokens.
        tools: the declared tools.
        tool_format: how the model writes tool calls.
    """
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    calls = tool_format.parse(raw)
    return float(
        bool(calls)
        and all(
            call.name in schemas and isinstance(call.arguments, dict) and _is_valid(call.arguments, schemas[call.name])
            for call in calls or []
        )
    )


def _is_valid(value: Any, schema: dict[str, Any]) -> bool:
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        # The registry is empty, so that no schema can make the pod fetch another one.
        return bool(Draft202012Validator(schema, registry=Registry()).is_valid(value))
    except (Unresolvable, RecursionError):
        return False


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


@lru_cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)
