"""What hostile pods say of themselves: parsed or not, and what is written from it can be written and shown."""

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
_MOST = 2**53 - 1


@pytest.mark.parametrize("name", _PARSERS)
def test_whatever_is_taken_over_can_be_written_and_shown(name: str, budget: Budget) -> None:
    random = Random(budget.seed)

    def check(text: str) -> None:
        for spoilt in (text, spoil(text, random)):
            budget.count("hostile_reports")
            fault = find_fault(name, spoilt)
            assert not fault, f"{fault}\nrepeat it with _PARSERS[{name!r}]({spoilt[:5000]!r})"

    for text in TEXTS:
        check(text)
    drawn = draw_report(REPORT if name == "report" else LOADED)
    explore(check, st.one_of(drawn, st.text(max_size=300)), budget, budget.reports // 6)


def spoil(text: str, random: Random) -> str:
    """Cut a text off, double a part of it, or put another character into it."""
    at, end = sorted(random.randint(0, len(text)) for _ in range(2))
    return random.choice(
        [
            text[:at],
            text[:end] + text[at:end] + text[end:],
            text[:at] + random.choice('"{}[],:\\\0\x1b9\ud800') + text[at:],
        ]
    )


def find_fault(name: str, text: str) -> str:
    """Return what is wrong with what a parser makes of a text; empty where nothing is."""
    found: Any = _PARSERS[name](text)
    if found is None:
        return ""
    try:
        written = json.dumps(found.to_dict(), allow_nan=False)
        written.encode()
    except ValueError as error:
        return f"it cannot be written: {error}"
    again = (
        StageReport if name == "report" else LoadedReport if name == "loaded" else type(found)
    ).model_validate_json(written)
    if again != found:
        return "it is read back as something else"
    return next(filter(None, map(find_part_fault, list_parts(found.to_dict()))), "")


def find_part_fault(part: Any) -> str:
    """Return what is wrong with one text or number."""
    if isinstance(part, str) and not part.isprintable():
        return f"a terminal would act upon {part[:100]!r}"
    if isinstance(part, int) and abs(part) > _MOST:
        return f"{part} is not read by everyone as it is written"
    return ""


def list_parts(value: Any) -> list[Any]:
    """Return every text and number in JSON, keys included."""
    match value:
        case dict():
            return [one for key, part in value.items() for one in (key, *list_parts(part))]
        case list():
            return [one for part in value for one in list_parts(part)]
    return [value]
