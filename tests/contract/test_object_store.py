"""Models and data from a real S3 server, through the client that the pods use."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.object_store import ObjectStore, Relay, object_store
from finetune_api.data import DataSource
from finetune_api.modelserver import Model
from finetune_pod import fetching
from finetune_pod.modelfiles import ModelFilesError
from finetune_serving.vllm_config import resolve_model
from finetune_trainer.failures import StageError
from finetune_trainer.fetch.sources import find_data, find_model
from model.tiny import make_tiny_model
from workspace import Workspace, make_price_chats, make_workspace


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """The server with one bucket for data and one for models."""
    root = tmp_path_factory.mktemp("s3") / "buckets"
    for name, text in {
        "a.jsonl": "first",
        "more/b.csv": "second",
        "more/notes.md": "no data",
        "ab.jsonl": "other",
        "doc/x.md": "text",
    }.items():
        path = root / "team-data" / "chats" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "team-data" / "large.jsonl").write_bytes(os.urandom(3_000_000))
    make_tiny_model(root / "models" / "tiny")
    for name, extra in {"code": "modeling.py", "pickles": "pytorch_model.bin"}.items():
        directory = root / "models" / name
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        (directory / extra).write_text("")
    (root / "models" / "code" / "model.safetensors").write_text("")
    with object_store(root) as running:
        yield running


@pytest.fixture
def with_keys(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Secrets of model and training data."""
    for source in ("MODEL", "TRAIN"):
        set_variables(monkeypatch, store.credentials(source))


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def read(uri: str, root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in find_data(DataSource(uri=uri), root, "TRAIN")}


@pytest.mark.usefixtures("store", "with_keys")
@pytest.mark.parametrize(
    ("uri", "files"),
    [
        ("s3://team-data/chats/a.jsonl", {"a.jsonl": "first"}),
        ("s3://team-data/chats", {"a.jsonl": "first", "ab.jsonl": "other", "b.csv": "second"}),
        ("s3://team-data/chats/more", {"b.csv": "second"}),
    ],
)
def test_an_object_or_all_data_files_of_a_prefix_are_fetched(uri: str, files: dict[str, str], tmp_path: Path) -> None:
    assert read(uri, tmp_path) == files


@pytest.mark.usefixtures("with_keys")
def test_a_download_resumes_after_a_broken_connection(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Relay(store.port, broken=4, after=1_000_000) as relay:
        set_variables(monkeypatch, store.credentials("TRAIN", endpoint=relay.endpoint))
        monkeypatch.setattr(fetching, "FIRST_WAIT", 0.01)
        (path,) = find_data(DataSource(uri="s3://team-data/large.jsonl"), tmp_path, "TRAIN")
        assert relay.connections > 2
    assert path.read_bytes() == (store.root / "team-data" / "large.jsonl").read_bytes()


@pytest.mark.usefixtures("store", "with_keys")
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://team-data/none.jsonl", "check the bucket, the key and the endpoint"),
        ("s3://no-such-bucket/x.jsonl", "check the bucket"),
        ("s3://team-data/chats/doc", "contains no data file"),
    ],
)
def test_a_missing_bucket_or_object_is_named(uri: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=message) as error:
        read(uri, tmp_path)
    assert error.value.reason == "DatasetNotFound"
    assert str(error.value).startswith(uri)


def test_wrong_or_missing_keys_are_reported(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, store.credentials("TRAIN", secret="wrong"))
    with pytest.raises(StageError, match="the server responds with 403: check the keys") as error:
        read("s3://team-data/chats", tmp_path)
    assert error.value.reason == "AccessDenied"
    for name in ("AWS_ACCESS_KEY_ID_TRAIN", "AWS_SECRET_ACCESS_KEY_TRAIN"):
        monkeypatch.delenv(name)
    with pytest.raises(StageError, match="the server responds with 403"):
        read("s3://team-data/chats/a.jsonl", tmp_path)


def test_keys_of_another_source_or_of_the_pod_are_not_sent(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = store.credentials("MODEL")
    set_variables(monkeypatch, keys | {name.removesuffix("_MODEL"): value for name, value in keys.items()})
    monkeypatch.setenv("AWS_ENDPOINT_URL_TRAIN", store.endpoint)
    with pytest.raises(StageError, match="the server responds with 403"):
        read("s3://team-data/chats", tmp_path)


@pytest.mark.usefixtures("with_keys")
def test_trainer_and_server_get_the_same_model(store: ObjectStore, tmp_path: Path) -> None:
    model = Model(uri="s3://models/tiny")
    without_weights = find_model(model, tmp_path, weights=False)
    assert not list(without_weights.glob("*.safetensors"))
    complete = find_model(model, tmp_path, weights=True)
    assert resolve_model(model.uri, tmp_path) == str(complete)
    stored = store.root / "models" / "tiny"
    assert {path.name: path.read_bytes() for path in complete.iterdir()} == {
        path.name: path.read_bytes() for path in stored.iterdir()
    }


@pytest.mark.usefixtures("store", "with_keys")
@pytest.mark.parametrize(("name", "message"), [("code", "contains its own code"), ("pickles", "no .*safetensors")])
def test_models_with_code_or_pickles_are_refused_by_trainer_and_server(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=message) as error:
        find_model(Model(uri=f"s3://models/{name}"), tmp_path, weights=False)
    assert error.value.reason == "ModelUnsafe"
    with pytest.raises(ModelFilesError, match=message):
        resolve_model(f"s3://models/{name}", tmp_path)


@pytest.mark.usefixtures("with_keys")
def test_a_job_is_prepared_with_model_and_data_from_s3(store: ObjectStore, tmp_path: Path) -> None:
    place: Workspace = make_workspace(
        tmp_path,
        store.root / "models" / "tiny",
        make_price_chats(20),
        model={"uri": "s3://models/tiny"},
        dataset={"train": {"uri": "s3://team-data/jobs"}},
    )
    target = store.root / "team-data" / "jobs" / "train.jsonl"
    target.parent.mkdir()
    (tmp_path / "claims" / "data" / "train.jsonl").rename(target)
    status, report = place.run_subprocess("prepare")
    assert status == 0, place.log
    assert report is not None
    assert report.dataset is not None
    assert report.dataset.train_examples + report.dataset.heldout_examples == 20
    model, data = json.loads(place.directory.report("prepare").read_text())["sources"]
    assert (model["uri"], data["uri"]) == ("s3://models/tiny", "s3://team-data/jobs")
    assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= {file["name"] for file in model["files"]}
    text = target.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    assert data["files"] == [{"name": "train.jsonl", "bytes": len(text), "sha256": digest}]
    assert f"s3://team-data/jobs: fetched, {len(text) / 1000:.1f} kB" in place.log
