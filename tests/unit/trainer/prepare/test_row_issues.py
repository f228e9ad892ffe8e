"""How many mistakes are listed."""

from pathlib import Path

from unit.surveys import chat, look


def test_of_each_kind_of_mistake_a_hundred_are_listed(tmp_path: Path) -> None:
    found = look(tmp_path, [chat(0), *[b"bad"] * 150, *[{"messages": []}] * 120])
    assert found.errors.counts == {"json": 150, "messages": 120}
    assert {kind: len(listed) for kind, listed in found.errors.listed.items()} == {"json": 100, "messages": 100}
