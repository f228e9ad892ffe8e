"""Scores of one answer: against its reference, a JSON schema, or the tools that it may call. Pure."""

import json
import re
import string
from collections import Counter
from functools import lru_cache
from typing import Any, NoReturn

from finetune_pod.toolcalls import ToolFormat


def normalise(text: str) -> str:
    """Return the text in lower case without punctuation, articles and extra spaces (SQuAD's evaluation script)."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, reference: str) -> float:
    """Return 1 where both are the same after normalisation, else 0."""
    return float(normalise(answer) == normalise(reference))


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of the normalised words (SQuAD's evaluation script)."""
    given, wanted = normalise(answer).split(), normalise(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


def bleu_statistics(answer: str, reference: str) -> tuple[int, ...]:
    """Return what the BLEU of a corpus is summed from (sacrebleu).

    These are the lengths of answer and reference, then for n-grams of 1 to 4 words how many are right, and how many
    there are.
    """
    score = _bleu().sentence_score(answer, [reference])
    return (score.sys_len, score.ref_len, *score.counts, *score.totals)


def json_valid(answer: str, schema: dict[str, Any] | None) -> float:
    """Return 1 where the answer is JSON, and follows the schema where there is one; else 0."""
    try:
        value = json.loads(answer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    return float(schema is None or _follows(value, schema))


def tool_call_valid(raw: str, tools: list[dict[str, Any]], written: ToolFormat) -> float:
    """Return 1 where the answer calls declared tools only, with arguments valid against their schemas; else 0.

    Args:
        raw: the answer with its special tokens.
        tools: the declared tools.
        written: how the model writes calls.
    """
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    calls = written.parse(raw)
    return float(
        bool(calls)
        and all(
            call.name in schemas and isinstance(call.arguments, dict) and _follows(call.arguments, schemas[call.name])
            for call in calls or []
        )
    )


def _follows(value: Any, schema: dict[str, Any]) -> bool:
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        # The registry is empty, so that a schema never makes the pod fetch another one.
        return bool(Draft202012Validator(schema, registry=Registry()).is_valid(value))
    except (Unresolvable, RecursionError):
        return False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


@lru_cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)
