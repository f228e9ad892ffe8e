"""The parts of the soak select existing tests."""

from pathlib import Path

import pytest
from soak.__main__ import PARTS


@pytest.mark.parametrize("part", [part for part, command in PARTS.items() if command[0] == "pytest"])
def test_a_part_selects_exactly_one_test(part: str) -> None:
    _, _, tier, _, name, *_ = PARTS[part]
    sources = "".join(path.read_text() for path in Path(tier).rglob("test_*.py"))
    assert sources.count(f"def {name}") == 1
