"""Exports to a real S3 server, and through the real hub client to a local server with the hub's routes."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from contract.object_store import ObjectStore, object_store
from finetune_api.artifact import Artifact, describe_artifact
from finetune_api.conditions import Reason
from finetune_api.contract.reports import StageReport
from model.templates import TEMPLATE, URI, write_template
from model.tiny import make_tiny_model
from workspace import Workspace, make_price_chats, make_workspace

TOKEN = "token-of-the-tests"
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """A hub that creates repositories on request and keeps the pushed files."""

    repositories: dict[str, dict[str, Any]]
    files: dict[str, bytes]
    uploads: dict[str, bytes]

    def do_GET(self) -> None:
        if not self._may_write():
            self._answer(403, {"error": "this token may only read"})
        else:
            self._answer(200, {})

    def do_PUT(self) -> None:
        self.uploads[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, {})

    def do_POST(self) -> None:
        if not self._may_write():
            self._answer(403, {"error": "this token may only read"})
        elif self.path == "/api/repos/create":
            repository = json.loads(self._body())
            name = f"{repository['organization']}/{repository['name']}"
            exists = name in self.repositories
            self.repositories.setdefault(name, repository)
            self._answer(409 if exists else 200, {"url": f"http://{self.headers['Host']}/{name}"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {})
        elif "/preupload/" in self.path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self._body())["files"]
            ]
            self._answer(200, {"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            upload = f"http://{self.headers['Host']}/lfs/"
            objects = [
                lfs_object | {"actions": {"upload": {"href": upload + lfs_object["oid"]}}}
                for lfs_object in json.loads(self._body())["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        else:
            self._commit()

    def _commit(self) -> None:
        for line in self._body().splitlines():
            step = json.loads(line)
            if step["key"] == "file":
                self.files[step["value"]["path"]] = base64.b64decode(step["value"]["content"])
            elif step["key"] == "lfsFile":
                self.files[step["value"]["path"]] = self.uploads[step["value"]["oid"]]
        name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
        self._answer(200, {"commitUrl": url, "commitOid": COMMIT})

    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """The hub. The trainer's environment has its address and a token with write access."""

    class EmptyHub(Hub):
        repositories: dict[str, dict[str, Any]] = {}
        files: dict[str, bytes] = {}
        uploads: dict[str, bytes] = {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN_HUB", TOKEN)
    yield EmptyHub
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The S3 server with an empty bucket, and the Secret of `output.bucket`."""
    (tmp_path / "buckets" / "models").mkdir(parents=True)
    with object_store(tmp_path / "buckets") as running:
        for name, value in running.credentials("BUCKET").items():
            monkeypatch.setenv(name, value)
        yield running


def make_trained_job(root: Path, output: dict[str, Any], **spec: Any) -> tuple[Workspace, Artifact]:
    """Return the workspace and the artifact of a trained job; the files are fakes."""
    place = make_workspace(root / "job", make_tiny_model(root / "model"), make_price_chats(40), output=output, **spec)
    adapter = place.directory.adapter(1)
    place.directory.report("train").parent.mkdir(parents=True)
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights" * 1_000_000)
    place.directory.history.write_text("step,train_loss\n")
    uri = f"{place.job.output_uri}/adapter/1"
    place.directory.model_card.write_text(f'# job\n\nPeftModel.from_pretrained(base, "{uri}")\n')
    return place, describe_artifact(adapter, uri)


def prepare(place: Workspace) -> tuple[int, Reason, str]:
    status, report = place.run_subprocess("prepare")
    assert report, place.log
    return status, report.reason, report.message


def export(place: Workspace, artifact: Artifact) -> StageReport:
    _, report = place.run_subprocess("export", f"--artifact={artifact.model_dump_json(by_alias=True)}")
    assert report, place.log
    return report


BUCKET = {"bucket": {"uri": "s3://models/team", "secretRef": {"name": "bucket"}}}
HUB = {"hub": {"uri": "hf://team/bot", "secretRef": {"name": "hub"}}}


def test_an_adapter_is_exported_to_a_bucket_and_to_the_hub(store: ObjectStore, hub: type[Hub], tmp_path: Path) -> None:
    model = {"uri": "pvc://models/tiny", "chatTemplate": URI}
    place, artifact = make_trained_job(tmp_path, BUCKET | HUB, model=model)
    write_template(place.root)
    assert prepare(place)[0] == 0
    assert hub.repositories["team/bot"]["visibility"] == "private"
    exported = store.root / "models" / "team" / "job-01234567"
    assert json.loads((exported / "job.json").read_text())["metadata"]["name"] == "job"

    report = export(place, artifact)
    assert report.export, place.log
    assert report.export.bucket == "s3://models/team/job-01234567"
    assert (report.export.hub, report.export.commit) == ("hf://team/bot", COMMIT)
    names = {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "steps.csv", "README.md"}
    assert {path.name for path in exported.iterdir()} == names | {"job.json"}
    assert set(hub.files) == names
    assert hub.files["chat_template.jinja"].decode() == TEMPLATE
    weights = (place.directory.adapter(1) / "adapter_model.safetensors").read_bytes()
    assert (exported / "adapter_model.safetensors").read_bytes() == hub.files["adapter_model.safetensors"] == weights
    assert 'from_pretrained(base, "team/bot")' in hub.files["README.md"].decode()
    assert 'from_pretrained(base, "s3://models/team/job-01234567")' in (exported / "README.md").read_text()


@pytest.mark.usefixtures("store")
def test_a_missing_bucket_is_reported_before_the_training(tmp_path: Path) -> None:
    place, _ = make_trained_job(tmp_path, {"bucket": BUCKET["bucket"] | {"uri": "s3://none/team"}})
    message = "s3://none/team/job-01234567 does not exist: check the bucket, the key and the endpoint"
    assert prepare(place) == (66, Reason.OUTPUT_NOT_FOUND, message)


@pytest.mark.usefixtures("hub")
def test_a_read_only_token_is_reported_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN_HUB", "token-that-reads")
    place, _ = make_trained_job(tmp_path, HUB)
    message = "hf://team/bot: the hub refuses the token in secretRef"
    assert prepare(place) == (77, Reason.ACCESS_DENIED, message)


def test_a_changed_adapter_is_not_exported(store: ObjectStore, tmp_path: Path) -> None:
    place, artifact = make_trained_job(tmp_path, BUCKET)
    (place.directory.adapter(1) / "adapter_config.json").write_text("{ }")
    report = export(place, artifact)
    assert report.reason == Reason.ADAPTER_REFUSED
    assert list((store.root / "models").iterdir()) == []
