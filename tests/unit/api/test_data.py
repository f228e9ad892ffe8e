"""Which method learns from which format."""

from typing import get_args

from finetune_api.data import SFT_FORMATS, Format, accepted_formats


def test_every_format_is_learnt_from_by_a_method() -> None:
    formats = {name: accepted_formats(name) for name in ("sft", "dpo", "kto", "orpo", "grpo", "reward")}
    assert {name for accepted in formats.values() for name in accepted} == set(get_args(Format))
    assert formats["sft"] == SFT_FORMATS
    assert formats["dpo"] == formats["orpo"] == formats["reward"]
