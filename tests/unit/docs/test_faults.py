"""docs/faults.md names every reason that needs action, and only tests that exist."""

import re
from pathlib import Path

from finetune_api.conditions import NORMAL_REASONS, Reason

ROOT = Path(__file__).parents[3]
ROWS = [line.split(" | ") for line in (ROOT / "docs" / "faults.md").read_text().splitlines() if line.startswith("| ")][
    2:
]


def test_every_reason_that_needs_action_is_in_the_table() -> None:
    named = {name for row in ROWS for name in re.findall(r"`([A-Z]\w+)`", row[1])}
    assert named == set(Reason) - NORMAL_REASONS


def test_every_test_in_the_table_exists() -> None:
    tests = [name for row in ROWS for name in re.findall(r"`(tests/[^`]+)`", row[3])]
    assert len(ROWS) > 25
    assert [name for name in tests if not (ROOT / name).exists()] == []
