"""The job as a file in its pods."""

from pathlib import Path

import pytest
from finetune_api.contract.jobfile import JobDirectory, JobFile, read_job_file
from finetune_api.finetunejob import FineTuneJobSpec
from unit.specs import SPEC


def test_a_job_file_survives_the_way_through_a_config_map(tmp_path: Path) -> None:
    job = JobFile("shop", "0123456789", FineTuneJobSpec.model_validate(SPEC))
    (tmp_path / "job.json").write_text(job.to_json())
    assert read_job_file(tmp_path / "job.json") == job
    assert job.output_uri == "pvc://finetune-artifacts/shop-01234567"
    assert JobDirectory.of(job).adapter(2) == Path("/claims/finetune-artifacts/shop-01234567/adapter/2")
    moved = JobDirectory.of(job, tmp_path)
    assert moved.adapter(2) == tmp_path / "claims/finetune-artifacts/shop-01234567/adapter/2"


def test_a_wrong_job_file_names_the_field(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"metadata": {"name": "a", "uid": "b"}, "spec": {"model": {}}}')
    with pytest.raises(ValueError, match="model.uri"):
        read_job_file(tmp_path / "job.json")
