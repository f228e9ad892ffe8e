"""How many errors are listed."""

from pathlib import Path

from unit.scans import chat, scan


def test_a_hundred_errors_of_each_kind_are_listed(tmp_path: Path) -> None:
    source = scan(tmp_path, [chat(0), *[b"bad"] * 150, *[{"messages": []}] * 120])
    assert source.errors.counts == {"json": 150, "messages": 120}
    assert {kind: len(listed) for kind, listed in source.errors.listed.items()} == {"json": 100, "messages": 100}
