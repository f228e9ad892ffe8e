"""What holds for every part of the API."""

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_operator.state.views import view_job
from unit.objects import NOW, job
from unit.specs import SPEC


def test_unknown_fields_are_ignored_so_that_older_programs_survive() -> None:
    assert FineTuneJobSpec.model_validate(SPEC | {"later": {"x": 1}}) == FineTuneJobSpec.model_validate(SPEC)


def test_a_time_without_a_zone_is_in_utc() -> None:
    read = view_job(job(status={"startTime": "2026-01-01T12:00:00"})).status
    assert read.start_time == NOW
