"""Data over https: a local server that redirects, breaks connections, is busy, and asks for a token."""

import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from finetune_api.data import DataSource
from finetune_pod import fetching
from finetune_trainer.failures import StageError
from finetune_trainer.fetch.sources import find_data

BODY = b"".join(b'{"text": "line %d of the file"}\n' % number for number in range(20_000))
BREAKS_AFTER = 200_000


class Files(BaseHTTPRequestHandler):
    """The path selects the behavior. Records the number of requests by path, and the ranges and tokens sent."""

    other = ""
    requests: Counter[str] = Counter()
    ranges: list[str | None] = []
    tokens: list[str | None] = []

    def do_GET(self) -> None:
        self.requests[self.path] += 1
        self.ranges.append(self.headers.get("Range"))
        self.tokens.append(self.headers.get("Authorization"))
        redirects = {
            "/elsewhere.jsonl": f"https://{self.other}/whole.jsonl",
            "/unlisted.jsonl": "https://127.0.0.2/whole.jsonl",
            "/plain.jsonl": f"http://{self.other}/whole.jsonl",
            "/loop.jsonl": "/loop.jsonl",
        }
        if self.path in redirects:
            self._answer(302, Location=redirects[self.path])
        elif self.path == "/busy.jsonl" and self.requests[self.path] < 3:
            self._answer(503)
        elif self.path == "/private.jsonl" and self.tokens[-1] != "Bearer secret":
            self._answer(401)
        elif self.path == "/none.jsonl":
            self._answer(404)
        else:
            self._send_file()

    def _send_file(self) -> None:
        tag = '"changed"' if self.path == "/changes.jsonl" and self.requests[self.path] > 1 else '"first"'
        start = 0
        if self.ranges[-1] and self.headers.get("If-Range") == tag:
            start = int(self.ranges[-1].removeprefix("bytes=").removesuffix("-"))
        body = BODY.replace(b"line", b"LINE") if tag == '"changed"' else BODY
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        is_broken = self.path in ("/breaks.jsonl", "/changes.jsonl") and self.requests[self.path] < 3
        self.wfile.write(body[start : start + BREAKS_AFTER] if is_broken else body[start:])

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key for the addresses of the tests, in one file."""
    directory = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days=2", "-subj=/CN=localhost"]
    subprocess.run([*command, "-addext", names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    combined = directory / "both.pem"
    combined.write_text(key.read_text() + cert.read_text())
    return combined


@pytest.fixture
def host(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's host name, which is listed; its second name is listed too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    name, Files.other = f"localhost:{server.server_port}", f"127.0.0.1:{server.server_port}"
    Files.requests, Files.ranges, Files.tokens = Counter(), [], []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("FINETUNE_HTTPS_HOSTS", f"{name},{Files.other}")
    monkeypatch.setattr(fetching, "FIRST_WAIT", 0.01)
    yield name
    server.shutdown()
    server.server_close()


def fetch(host: str, path: str, root: Path) -> bytes:
    (file,) = find_data(DataSource(uri=f"https://{host}/{path}"), root, "TRAIN")
    assert file.name == path.rpartition("/")[2]
    return file.read_bytes()


def fetch_error(host: str, path: str, root: Path) -> StageError:
    with pytest.raises(StageError) as error:
        fetch(host, path, root)
    return error.value


def test_a_file_is_fetched(host: str, tmp_path: Path) -> None:
    assert fetch(host, "v1/whole.jsonl", tmp_path) == BODY


def test_a_download_resumes_after_a_broken_connection(host: str, tmp_path: Path) -> None:
    assert fetch(host, "breaks.jsonl", tmp_path) == BODY
    assert Files.ranges == [None, f"bytes={BREAKS_AFTER}-", f"bytes={2 * BREAKS_AFTER}-"]


def test_a_file_that_changes_during_the_download_is_fetched_again(host: str, tmp_path: Path) -> None:
    assert fetch(host, "changes.jsonl", tmp_path) == BODY.replace(b"line", b"LINE")


def test_a_busy_server_is_retried(host: str, tmp_path: Path) -> None:
    assert fetch(host, "busy.jsonl", tmp_path) == BODY
    assert Files.requests["/busy.jsonl"] == 3


def test_the_token_is_sent_to_its_host_and_not_to_a_redirect(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = fetch_error(host, "private.jsonl", tmp_path)
    assert (error.reason, "secretRef" in str(error)) == ("AccessDenied", True)
    monkeypatch.setenv("HTTPS_TOKEN_TRAIN", "secret")
    assert fetch(host, "private.jsonl", tmp_path) == BODY
    Files.tokens.clear()
    assert fetch(host, "elsewhere.jsonl", tmp_path) == BODY
    assert Files.tokens == ["Bearer secret", None]


@pytest.mark.parametrize(
    ("path", "reason", "message"),
    [
        ("unlisted.jsonl", "AccessDenied", "127.0.0.2 is not among the hosts that the administrator lists"),
        ("plain.jsonl", "AccessDenied", "only https is followed"),
        ("loop.jsonl", "DatasetNotFound", "more than 5 redirects"),
        ("none.jsonl", "DatasetNotFound", "the server returned 404"),
        ("page.html", "DatasetNotFound", "contains no data file"),
    ],
)
def test_a_refused_or_failed_fetch_has_a_reason(
    host: str, path: str, reason: str, message: str, tmp_path: Path
) -> None:
    error = fetch_error(host, path, tmp_path)
    assert error.reason == reason
    assert message in str(error)


def test_an_unlisted_host_gets_no_request(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_HTTPS_HOSTS", "")
    assert "(none)" in str(fetch_error(host, "whole.jsonl", tmp_path))
    assert not Files.requests


def test_private_addresses_of_a_listed_domain_are_refused(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = host.rpartition(":")[2]
    monkeypatch.setenv("FINETUNE_HTTPS_HOSTS", f"*.0.0.1:{port}")
    error = fetch_error(f"127.0.0.1:{port}", "whole.jsonl", tmp_path)
    assert "which is not public" in str(error)
    assert not Files.requests


def test_a_server_that_stays_busy_is_reported_as_unreachable(host: str, tmp_path: Path) -> None:
    Files.requests["/busy.jsonl"] = -10
    assert fetch_error(host, "busy.jsonl", tmp_path).reason == "SourceUnreachable"
