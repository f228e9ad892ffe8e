"""What holds for every part of the API."""

from finetune_api.finetunejob import FineTuneJobSpec
from unit.specs import SPEC


def test_unknown_fields_are_ignored_so_that_older_programs_survive() -> None:
    assert FineTuneJobSpec.model_validate(SPEC | {"later": {"x": 1}}) == FineTuneJobSpec.model_validate(SPEC)
