"""Manifests that a user wrote are read as kubectl reads them, or refused with the file and the field."""

from pathlib import Path

import pytest
from finetune.errors import CommandError
from finetune.manifests import find_job, read_manifests

JOB = """apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: shop}
spec:
  model: {uri: pvc://models/base}
  dataset: {train: {uri: configmap://data/train.jsonl}}
  method: {sft: {}}
  adapter: {lora: {}}
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "job.yaml"
    path.write_text(text)
    return path


def test_a_file_may_have_several_objects(tmp_path: Path) -> None:
    path = write(tmp_path, f"---\n{JOB}---\nkind: ConfigMap\nmetadata: {{name: data}}\n---\n")
    documents = read_manifests(path)
    assert [document["kind"] for document in documents] == ["FineTuneJob", "ConfigMap"]
    assert find_job(path, documents)["metadata"]["name"] == "shop"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (JOB.replace("lora: {}", "lora: {rank: -1}"), "FineTuneJob shop is invalid: spec.adapter.lora.rank: "),
        (JOB.replace("adapter", "adaptor"), "spec.adapter: Field required"),
        (JOB.replace("v1alpha1", "v9"), "apiVersion of FineTuneJob shop must be finetune.dev/v1alpha1"),
        ("kind: FineTuneJob", "an object needs kind, and metadata with a name"),
        ("- a\n- b", "an object needs kind, and metadata with a name"),
        ("a: [", "job.yaml is not YAML"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError) as error:
        read_manifests(write(tmp_path, text))
    assert message in str(error.value)
    assert "job.yaml" in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        read_manifests(tmp_path / "job.yaml")


@pytest.mark.parametrize("count", [0, 2])
def test_a_run_needs_one_job(count: int, tmp_path: Path) -> None:
    path = write(tmp_path, "\n---\n".join([JOB] * count))
    with pytest.raises(CommandError, match=f"has {count} objects of the kind FineTuneJob"):
        find_job(path, read_manifests(path))
