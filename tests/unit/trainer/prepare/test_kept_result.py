"""A kept result is evaluated on examples that its parent was not trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_api.artifact import Artifact
from finetune_api.contract.jobfile import JobDirectory, JobFile
from finetune_api.modelserver import Model
from finetune_api.warm_start import WarmStart
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.kept_result import leave_out_known
from finetune_trainer.prepare.row_issues import RowIssues
from finetune_trainer.prepared import read_examples
from unit.geometries import spec
from unit.pod_reports import DIGEST
from unit.scans import chat


def write(path: Path, examples: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(example) + "\n" for example in examples))


@pytest.fixture
def job() -> JobFile:
    artifact = Artifact(uri="pvc://finetune-artifacts/first-01234567/adapter/1", digest=DIGEST, bytes=1)
    kept = WarmStart(job="first", model=Model(uri="pvc://models/base"), artifact=artifact, parent_adapter="Keep")
    return JobFile("again", "89abcdef", spec(), kept)


def test_examples_of_the_parents_training_are_left_out(job: JobFile, tmp_path: Path) -> None:
    assert job.kept
    assert job.warm_start
    directory, warnings = JobDirectory.of(job, tmp_path), RowIssues()
    parent = JobDirectory.of_artifact(job.kept, tmp_path)
    write(directory.heldout_data, [chat(number) for number in range(8)])
    write(parent.train_data, [chat(number) for number in range(3)])
    assert leave_out_known(job.warm_start, directory, warnings) == 5
    assert list(read_examples(directory.heldout_data)) == [chat(number) for number in range(3, 8)]
    ((_, message),) = warnings.listed["known"]
    assert message == "3 held-out examples are left out: FineTuneJob first was trained on them"
    write(parent.train_data, [chat(number) for number in range(8)])
    with pytest.raises(StageError, match="first was trained on all 5 held-out examples: set dataset.validation"):
        leave_out_known(job.warm_start, directory, warnings)


def test_training_data_that_is_gone_is_a_warning(job: JobFile, tmp_path: Path) -> None:
    assert job.warm_start
    directory, warnings = JobDirectory.of(job, tmp_path), RowIssues()
    write(directory.heldout_data, [chat(1)])
    assert leave_out_known(job.warm_start, directory, warnings) == 1
    assert warnings.counts == {"parent": 1}
