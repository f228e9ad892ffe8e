"""A tenant that may only write FineTuneJobs and ModelServers tries to get more rights; no attempt may succeed."""

import re

import pytest
from api.conftest import Operator
from api.player import Player
from escalations.attempts import GROUPS
from escalations.fields import POD_FIELDS
from escalations.scene import SUCCEEDED, Scene
from escalations.words import BASES, describe, find_leaves, text_fields


@pytest.mark.parametrize("group", GROUPS)
def test_no_attempt_succeeds(scene: Scene, operator: Operator, player: Player, group: str) -> None:
    attempts = list(GROUPS[group](scene))
    assert len(attempts) >= 10
    assert not [attempt for attempt in attempts if attempt.outcome == SUCCEEDED]


@pytest.mark.parametrize("plural", ["finetunejobs", "modelservers"])
def test_every_text_field_is_covered(plural: str) -> None:
    tried = {
        describe(leaf) for base in BASES if base["kind"].lower() + "s" == plural for leaf in find_leaves(base["spec"])
    }
    # The kinds of low-rank adapters have the same settings.
    fields = {re.sub(r"adapter\.(qlora|dora|rslora)\.", "adapter.lora.", field) for field in text_fields(plural)}
    assert sorted(fields - tried - {"spec.serving.template.nodeSelector{}"}) == []
    assert len(POD_FIELDS) > 30
