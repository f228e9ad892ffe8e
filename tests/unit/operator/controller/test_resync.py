"""How often everything is listed."""

import pytest
from finetune_operator.controller.resync import find_pause


@pytest.mark.parametrize(("listed", "pause"), [(0, 60), (1_500, 60), (30_000, 1_200)])
def test_many_objects_are_audited_less_often(listed: int, pause: float) -> None:
    assert find_pause(60, listed) == pause
