"""Generates short texts that a regular expression matches, at least one for each alternative."""

import re
from collections.abc import Iterator
from itertools import islice, product
from typing import Any

_parse: Any = getattr(re, "_parser").parse  # noqa: B009 - the parser has no public name
_MAX_TEXTS = 32


def spell(pattern: str) -> Iterator[str]:
    """Return texts that match a pattern completely.

    Raises:
        ValueError: the pattern uses a feature that is not supported here.
    """
    seen: set[str] = set()
    for text in _spell(_parse(pattern)):
        if text not in seen and re.fullmatch(pattern, text):
            seen.add(text)
            yield text


def _spell(parsed: Any) -> list[str]:
    parts = [_spell_part(str(operation), argument) for operation, argument in parsed]
    return ["".join(chosen) for chosen in islice(product(*parts), _MAX_TEXTS)]


def _spell_part(operation: str, argument: Any) -> list[str]:
    match operation:
        case "LITERAL":
            return [chr(argument)]
        case "AT":
            return [""]
        case "IN":
            return [_first_of(argument)]
        case "BRANCH":
            return [text for alternative in argument[1] for text in _spell(alternative)]
        case "SUBPATTERN":
            return _spell(argument[-1])
        case "MAX_REPEAT":
            least, most, repeated = argument
            texts = [text * least for text in _spell(repeated)] if least else [""]
            return texts if least or int(most) > 1 else ["", *_spell(repeated)]
    raise ValueError(f"unsupported operation {operation}")


def _first_of(choices: Any) -> str:
    for operation, argument in choices:
        match str(operation):
            case "LITERAL":
                return chr(argument)
            case "RANGE":
                # Zero is often invalid.
                return "1" if argument == (ord("0"), ord("9")) else chr(argument[0])
    raise ValueError(f"unsupported characters {choices}")
