"""The manifest and the values in docs/lifecycle.md are valid for the API and the settings."""

import re
from pathlib import Path
from typing import Any

import yaml
from finetune_api.finetunejob import MUTABLE_FIELDS, FineTuneJob
from finetune_operator.settings import Limit, Limits
from pydantic.alias_generators import to_camel

TEXT = (Path(__file__).parents[3] / "docs" / "lifecycle.md").read_text()
BLOCKS: list[dict[str, Any]] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def test_the_manifest_is_valid_and_each_of_its_fields_is_known() -> None:
    spec = FineTuneJob.model_validate(BLOCKS[0]).spec
    assert set(BLOCKS[0]["spec"]) <= set(spec.to_dict())
    assert (spec.active_deadline_seconds, spec.ttl_seconds_after_finished) == (86400, 604800)


def test_the_mutable_fields_are_listed() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| yes[^|]*\|$", TEXT, re.MULTILINE)
    assert set(rows) == {*map(to_camel, MUTABLE_FIELDS), "serving.rollout"}


def test_the_limits_apply_as_the_page_says() -> None:
    limits = Limits.model_validate(BLOCKS[1]["limits"])
    assert limits.of("team-a") == Limit(gpus=32)
    assert limits.of("team-b") == Limit(gpus=8, jobs=10)
