"""The API's own rules, as whoever reads a manifest meets them."""

from pathlib import Path, PurePosixPath
from typing import Any, get_args

import pytest
from finetune_api.crd import build_crds
from finetune_api.data import SFT_FORMATS, Format, accepted_formats
from finetune_api.digest import digest_directory, digest_value
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.hosts import find_entry, names_metadata
from finetune_api.jobfile import JobDirectory, JobFile, read_job_file
from finetune_api.mounts import path_of
from finetune_api.reports import MAX_MESSAGE, StageReport, parse_report, write_report
from finetune_api.schema import structural_schema
from finetune_api.uris import Uri, parse_uri
from pydantic import BaseModel, ValidationError

SPEC: dict[str, Any] = {
    "model": {"uri": "pvc://models/base"},
    "dataset": {"train": {"uri": "configmap://data/train.jsonl"}},
    "method": {"sft": {}},
    "adapter": {"lora": {}},
}


def spec(**changes: Any) -> dict[str, Any]:
    return SPEC | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {}}, "choose exactly one method"),
        ({"adapter": {}}, "choose exactly one adapter"),
        ({"model": {"uri": "ftp://bucket/key"}}, "uri\n  Value error, give "),
        ({"model": {"uri": "s3://b/key"}}, "uri\n  Value error, give "),
        ({"model": {"uri": "s3://bucket/../key"}}, "uri\n  Value error, give "),
        ({"model": {"uri": "s3://bucket/key", "revision": "main"}}, "revision is for models on the hub"),
        ({"model": {"uri": "pvc://models/base", "secretRef": {"name": "x"}}}, "models that are fetched"),
        ({"dataset": {"train": {"uri": "https://example.com/x.jsonl?token=1"}}}, "uri\n  Value error, give "),
        ({"dataset": {"train": {"uri": "https://user@example.com/x.jsonl"}}}, "uri\n  Value error, give "),
        ({"dataset": {"train": {"uri": "https://example.com"}}}, "uri\n  Value error, give "),
        ({"dataset": {"train": {"uri": "http://example.com/x.jsonl"}}}, "uri\n  Value error, give "),
        ({"model": {"uri": "https://example.com/model"}}, "uri\n  Value error, give "),
        ({"model": {"uri": "finetunejob://first/adapter"}}, "uri\n  Value error, give "),
        ({"model": {"uri": "finetunejob://first", "secretRef": {"name": "x"}}}, "models that are fetched"),
        ({"model": {"uri": "hf://org/name", "earlierAdapter": "Merge"}}, "models of an earlier job"),
        ({"dataset": {"train": {"uri": "configmap://d/x", "secretRef": {"name": "x"}}}}, "data that is fetched"),
        ({"model": {"uri": "pvc://models/../etc"}}, "uri\n  Value error, give "),
        ({"model": {"uri": "pvc://models/base", "revision": "main"}}, "revision is for models on the hub"),
        (
            {"dataset": {"train": {"uri": "pvc://data/a"}, "validation": {"uri": "pvc://data/b"}, "holdout": 0.1}},
            "both",
        ),
        ({"evaluation": {"gates": [{"metric": "Perplexity"}]}}, "exactly one of minGain and maxLoss"),
        ({"hyperparameters": {"batchSize": 8, "microBatchSize": 3}}, "must divide"),
        ({"serving": {"modelName": "x"}}, "exactly one of server and template"),
        ({"serving": {"modelName": "base", "server": "s"}}, "base model's own"),
        ({"serving": {"modelName": "x--y", "server": "s"}}, "pattern"),
        (
            {"adapter": {"lora": {"rank": 32}}, "serving": {"modelName": "x", "template": {"lora": {"maxRank": 8}}}},
            "above",
        ),
    ],
)
def test_wrong_specs_are_refused_with_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FineTuneJobSpec.model_validate(spec(**changes))


def test_every_format_is_learnt_from_by_a_method() -> None:
    formats = {name: accepted_formats(name) for name in ("sft", "dpo", "kto", "orpo", "grpo", "reward")}
    assert {one for accepted in formats.values() for one in accepted} == set(get_args(Format))
    assert formats["sft"] == SFT_FORMATS
    assert formats["dpo"] == formats["orpo"] == formats["reward"]


def test_unknown_fields_are_ignored_so_that_older_programs_survive() -> None:
    assert FineTuneJobSpec.model_validate(spec(later={"x": 1})) == FineTuneJobSpec.model_validate(SPEC)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("hf://org/name", Uri("hf", "org/name", "")),
        ("hf://org/name/data/train.jsonl", Uri("hf", "org/name", "data/train.jsonl")),
        ("pvc://claim/a/b", Uri("pvc", "claim", "a/b")),
        ("s3://my.bucket/a/b.jsonl", Uri("s3", "my.bucket", "a/b.jsonl")),
        ("https://example.com:8443/a/b.jsonl", Uri("https", "example.com:8443", "a/b.jsonl")),
        ("finetunejob://first", Uri("finetunejob", "first", "")),
        ("s3://bucket", Uri("s3", "bucket", "")),
        ("configmap://data/train.jsonl", Uri("configmap", "data", "train.jsonl")),
    ],
)
def test_uris_are_taken_apart_and_put_together(text: str, uri: Uri) -> None:
    assert parse_uri(text) == uri
    assert str(uri) == text


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("data.example.com", "data.example.com"),
        ("data.example.com:8443", None),
        ("other.org:8443", "other.org:8443"),
        ("a.b.mirror.org", "*.mirror.org"),
        ("mirror.org", None),
        ("evilmirror.org", None),
        ("data.example.com.evil.org", None),
    ],
)
def test_a_host_is_listed_by_its_name_or_by_a_domain_above_it(host: str, entry: str | None) -> None:
    assert find_entry(host, ["data.example.com", "other.org:8443", "*.mirror.org"]) == entry


def test_mounted_uris_have_a_path_and_fetched_ones_have_none() -> None:
    assert path_of("pvc://claim/a") == PurePosixPath("/claims/claim/a")
    assert path_of("configmap://data/x.jsonl") == PurePosixPath("/configmaps/data/x.jsonl")
    with pytest.raises(ValueError, match="not mounted"):
        path_of("hf://org/name")


def test_a_job_file_survives_the_way_through_a_config_map(tmp_path: Path) -> None:
    job = JobFile("shop", "0123456789", FineTuneJobSpec.model_validate(SPEC))
    (tmp_path / "job.json").write_text(job.to_json())
    assert read_job_file(tmp_path / "job.json") == job
    assert job.output_uri == "pvc://finetune-artifacts/shop-01234567"
    assert JobDirectory.of(job).adapter(2) == Path("/claims/finetune-artifacts/shop-01234567/adapter/2")


def test_a_wrong_job_file_names_the_field(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"metadata": {"name": "a", "uid": "b"}, "spec": {"model": {}}}')
    with pytest.raises(ValueError, match="model.uri"):
        read_job_file(tmp_path / "job.json")


def test_reports_fit_the_kubelet_and_keep_their_parts(tmp_path: Path) -> None:
    report = StageReport.model_validate({"outcome": "Failed", "reason": "DatasetInvalid", "message": "é" * 1024})
    write_report(report, str(tmp_path / "log"))
    assert parse_report((tmp_path / "log").read_text()) == report
    assert len((tmp_path / "log").read_bytes()) <= MAX_MESSAGE


def test_the_longest_report_keeps_its_figures_and_loses_text(tmp_path: Path) -> None:
    gate: dict[str, Any] = {"metric": "ClassificationF1", "grader": "g" * 32, "relativeTo": "Incumbent"}
    gate |= {"passed": True, "message": "\\ü" * 512}
    ends: dict[str, Any] = dict.fromkeys(("gain", "gainLow", "gainHigh"), -123456.123456) | {"verdict": "Inconclusive"}
    metric: dict[str, Any] = {
        "metric": "ClassificationF1",
        "grader": "g" * 32,
        "base": 123456.123456,
        "tuned": 123456.123456,
    } | ends
    metric |= {"incumbent": {"value": 123456.123456} | ends}
    report = StageReport.model_validate(
        {
            "outcome": "Succeeded",
            "reason": "Succeeded",
            "message": "\n" * 1024,
            "evaluation": {"examples": 10_000, "passed": True, "metrics": [metric] * 8, "gates": [gate] * 8},
        }
    )
    write_report(report, str(tmp_path / "log"))
    written = parse_report((tmp_path / "log").read_text())
    assert len((tmp_path / "log").read_bytes()) <= MAX_MESSAGE
    assert written is not None
    assert written.evaluation is not None
    assert report.evaluation is not None
    assert written.evaluation.metrics == report.evaluation.metrics
    assert [gate.passed for gate in written.evaluation.gates] == [True] * 8


@pytest.mark.parametrize(
    "text", ["", "killed", "[]", '{"outcome": "Succeeded"}', '{"outcome": "x"}', "{" * 5000, "9" * 5000]
)
def test_what_is_no_report_is_none(text: str) -> None:
    assert parse_report(text) is None


def test_digests_see_names_and_contents_but_not_the_order_of_keys(tmp_path: Path) -> None:
    assert digest_value({"a": 1, "b": 2}) == digest_value({"b": 2, "a": 1})
    (tmp_path / "a").write_text("x")
    first = digest_directory(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_directory(tmp_path) != first
    (tmp_path / "link").symlink_to("b")
    with pytest.raises(ValueError, match="symbolic link"):
        digest_directory(tmp_path)


def test_every_field_is_described() -> None:
    def undescribed(schema: dict[str, Any], path: str) -> list[str]:
        found = []
        for name, part in schema.get("properties", {}).items():
            if "description" not in part:
                found.append(f"{path}.{name}")
            found += undescribed(part, f"{path}.{name}") + undescribed(part.get("items", {}), f"{path}.{name}")
        return found

    for crd in build_crds().values():
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        missing = [one for one in undescribed(schema, "") if not one.startswith(".status.attempts.")]
        assert not missing


def test_what_a_structural_schema_cannot_say_is_an_error() -> None:
    class Union(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match="union"):
        structural_schema(Union)


@pytest.mark.parametrize(
    ("url", "is_metadata"),
    [
        ("http://169.254.169.254:80/latest", True),
        ("http://2852039166/", True),
        ("http://0xA9FEA9FE", True),
        ("http://0251.0376.0251.0376", True),
        ("http://169.16689662", True),
        ("http://METADATA.google.internal/x", True),
        ("http://metadata", True),
        ("http://metadata-store:5000", False),
        ("http://ml.metadata.svc/", False),
        ("http://mlflow.v1:5000", False),
        ("http://10.0.0.5:5000/x", False),
    ],
)
def test_an_address_of_a_metadata_service_is_known_in_every_form(url: str, is_metadata: bool) -> None:
    assert names_metadata(url) is is_metadata
