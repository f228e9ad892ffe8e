"""Reports of hostile pods: refused, or parsed to values that can be stored and printed."""

import json
from random import Random
from typing import Any

import pytest
from finetune_api.contract.reports import StageReport, parse_report
from finetune_api.contract.routes import LoadedReport, parse_loaded
from finetune_operator.controller.pod_client import parse_progress
from fuzz.conftest import Budget
from fuzz.hostile import TEXTS
from fuzz.test_core import explore
from fuzz.worlds import LOADED, REPORT, draw_report
from hypothesis import strategies as st

_PARSERS = {"report": parse_report, "loaded": parse_loaded, "progress": parse_progress}
_MAX_INTEGER = 2**53 - 1


@pytest.mark.parametrize("name", _PARSERS)
def test_every_parsed_report_can_be_stored_and_printed(name: str, budget: Budget) -> None:
    random = Random(budget.seed)

    def check(text: str) -> None:
        for variant in (text, corrupt(text, random)):
            budget.count("hostile_reports")
            fault = find_fault(name, variant)
            assert not fault, f"{fault}\nrepeat it with _PARSERS[{name!r}]({variant[:5000]!r})"

    for text in TEXTS:
        check(text)
    drawn = draw_report(REPORT if name == "report" else LOADED)
    explore(check, st.one_of(drawn, st.text(max_size=300)), budget, budget.reports // 6)


def corrupt(text: str, random: Random) -> str:
    """Return a text truncated, with a part repeated, or with an inserted character."""
    at, end = sorted(random.randint(0, len(text)) for _ in range(2))
    return random.choice(
        [
            text[:at],
            text[:end] + text[at:end] + text[end:],
            text[:at] + random.choice('"{}[],:\\\0\x1b9\ud800') + text[at:],
        ]
    )


def find_fault(name: str, text: str) -> str:
    """Return a fault of the parsed value of a text; empty where there is none."""
    parsed: Any = _PARSERS[name](text)
    if parsed is None:
        return ""
    try:
        written = json.dumps(parsed.to_dict(), allow_nan=False)
        written.encode()
    except ValueError as error:
        return f"it is not valid JSON: {error}"
    reparsed = (
        StageReport if name == "report" else LoadedReport if name == "loaded" else type(parsed)
    ).model_validate_json(written)
    if reparsed != parsed:
        return "it changes when it is read back"
    return next(filter(None, map(find_part_fault, list_parts(parsed.to_dict()))), "")


def find_part_fault(part: Any) -> str:
    """Return the fault of a text or number; empty where there is none."""
    if isinstance(part, str) and not part.isprintable():
        return f"a control character in {part[:100]!r}"
    if isinstance(part, int) and abs(part) > _MAX_INTEGER:
        return f"{part} is too large for a JSON number"
    return ""


def list_parts(value: Any) -> list[Any]:
    """Return every text and number in JSON, keys included."""
    match value:
        case dict():
            return [leaf for key, part in value.items() for leaf in (key, *list_parts(part))]
        case list():
            return [leaf for part in value for leaf in list_parts(part)]
    return [value]
