"""Which volumes are recycled."""

from pathlib import Path

import pytest
from cluster.storage import build_volume, is_recyclable


@pytest.mark.parametrize(
    ("storage_class", "phase", "free"),
    [
        ("local", "Released", True),
        ("local", "Bound", False),
        ("local", "Available", False),
        ("kept-helpdesk-base", "Released", False),
        ("fast", "Released", False),
    ],
)
def test_only_released_volumes_of_our_class_are_recycled(storage_class: str, phase: str, *, free: bool) -> None:
    volume = build_volume("local-1", Path("/nowhere"))
    volume["spec"]["storageClassName"] = storage_class
    assert is_recyclable(volume | {"status": {"phase": phase}}) is free
    assert not is_recyclable(volume)
