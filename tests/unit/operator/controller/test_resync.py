"""How often the operator resyncs."""

import pytest
from finetune_operator.controller.resync import compute_pause


@pytest.mark.parametrize(("listed", "pause"), [(0, 60), (1_500, 60), (30_000, 1_200)])
def test_many_objects_are_resynced_less_often(listed: int, pause: float) -> None:
    assert compute_pause(60, listed) == pause
