"""The real huggingface_hub client against a local server with the hub's routes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

STATUSES = {"org/broken": 500, "org/busy": 429, "org/private": 401}
COMMITS = {"main": "a" * 40, "v2": "b" * 40}
FILES = ("README.md", "a.jsonl", "more/b.jsonl")
SCRIPT = """
import sys
from pathlib import Path
from finetune_api.data import DataSource
from finetune_trainer.failures import StageError
from finetune_trainer.prepare.provenance import describe_files
from finetune_trainer.fetch.sources import find_data
from finetune_pod import fetching
fetching.FIRST_WAIT = 0.01
try:
    source = DataSource(uri=sys.argv[1], revision=sys.argv[2] or None)
    files = find_data(source, Path("/"), "TRAIN")
    print(*(f"{path.name}: {path.read_text()}" for path in files), sep=", ")
    print(describe_files(source.uri, files)["commit"])
except StageError as error:
    print(error.reason, error)
"""


class Hub(BaseHTTPRequestHandler):
    """One public data set, one gated, and some that answer with an error status."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        parts = self.path.removeprefix("/api").split("/")
        repository = "/".join(parts[2:4])
        if repository in STATUSES:
            self.send_response(STATUSES[repository])
            self.end_headers()
            return
        if repository == "org/gated" and self.headers.get("Authorization") != "Bearer secret":
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.end_headers()
            return
        if repository not in ("org/data", "org/gated"):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return
        revision = next((name for name, commit in COMMITS.items() if {name, commit} & set(parts)), "main")
        body = f"one line of {revision}".encode()
        if self.path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in FILES]
            body = json.dumps({"id": repository, "sha": COMMITS[revision], "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("ETag", f'"{revision}"')
        self.send_header("X-Repo-Commit", COMMITS[revision])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """URL of the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(hub: str, home: Path, uri: str, revision: str = "", **env: str) -> str:
    """Fetch in a subprocess, since the client reads its environment at import; return its output."""
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | env
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, uri, revision],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_file_of_a_data_set_is_fetched(hub: str, tmp_path: Path) -> None:
    output = fetch(hub, tmp_path, "hf://org/data/train.jsonl").split("\n")
    assert output == ["train.jsonl: one line of main", COMMITS["main"]]
    output = fetch(hub, tmp_path, "hf://org/data/train.jsonl", "v2").split("\n")
    assert output == ["train.jsonl: one line of v2", COMMITS["v2"]]


@pytest.mark.parametrize(("uri", "names"), [("hf://org/data", "ab"), ("hf://org/data/more", "b")])
def test_all_data_files_of_a_data_set_or_a_folder_are_fetched(hub: str, tmp_path: Path, uri: str, names: str) -> None:
    output, _ = fetch(hub, tmp_path, uri).split("\n")
    assert output == ", ".join(f"{name}.jsonl: one line of main" for name in names)


def test_a_folder_without_data_is_refused(hub: str, tmp_path: Path) -> None:
    assert fetch(hub, tmp_path, "hf://org/data/none").startswith("DatasetNotFound hf://org/data/none contains")


def test_a_gated_data_set_needs_a_token(hub: str, tmp_path: Path) -> None:
    output = fetch(hub, tmp_path, "hf://org/gated/train.jsonl")
    assert output.startswith("TermsNotAccepted")
    assert "secretRef" in output
    assert fetch(hub, tmp_path, "hf://org/gated/train.jsonl", HF_TOKEN_TRAIN="secret").startswith(
        "train.jsonl: one line"
    )


def test_the_token_of_the_model_is_not_sent_for_data(hub: str, tmp_path: Path) -> None:
    output = fetch(hub, tmp_path, "hf://org/gated/train.jsonl", HF_TOKEN="secret")
    assert output.startswith("TermsNotAccepted")


def test_a_missing_repository_is_named(hub: str, tmp_path: Path) -> None:
    assert fetch(hub, tmp_path, "hf://org/none/train.jsonl").startswith("DatasetNotFound hf://org/none")


@pytest.mark.parametrize(
    ("repository", "refusal"),
    [
        ("org/private", "AccessDenied hf://org/private/x: the hub refuses the token in secretRef"),
        (
            "org/busy",
            "RateLimited hf://org/busy/x: the hub limits the request rate: set secretRef to a Secret with a token",
        ),
        ("org/broken", "SourceUnreachable hf://org/broken/x: the hub returned 500"),
    ],
)
def test_each_error_of_the_hub_has_a_reason(hub: str, tmp_path: Path, repository: str, refusal: str) -> None:
    assert fetch(hub, tmp_path, f"hf://{repository}/x").startswith(refusal)


def test_an_unreachable_hub_is_reported(hub: str, tmp_path: Path) -> None:
    assert fetch(hub, tmp_path, "hf://org/data/x", HF_ENDPOINT="http://127.0.0.1:1").startswith("SourceUnreachable")
