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
    """What a path does is told by its name; `asked` counts requests, and keeps the ranges and tokens sent."""

    other = ""
    asked: Counter[str] = Counter()
    ranges: list[str | None] = []
    tokens: list[str | None] = []

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        self.ranges.append(self.headers.get("Range"))
        self.tokens.append(self.headers.get("Authorization"))
        places = {
            "/elsewhere.jsonl": f"https://{self.other}/whole.jsonl",
            "/unlisted.jsonl": "https://127.0.0.2/whole.jsonl",
            "/plain.jsonl": f"http://{self.other}/whole.jsonl",
            "/loop.jsonl": "/loop.jsonl",
        }
        if self.path in places:
            self._answer(302, Location=places[self.path])
        elif self.path == "/busy.jsonl" and self.asked[self.path] < 3:
            self._answer(503)
        elif self.path == "/private.jsonl" and self.tokens[-1] != "Bearer secret":
            self._answer(401)
        elif self.path == "/none.jsonl":
            self._answer(404)
        else:
            self._send_file()

    def _send_file(self) -> None:
        tag = '"changed"' if self.path == "/changes.jsonl" and self.asked[self.path] > 1 else '"first"'
        start = 0
        if self.ranges[-1] and self.headers.get("If-Range") == tag:
            start = int(self.ranges[-1].removeprefix("bytes=").removesuffix("-"))
        body = BODY.replace(b"line", b"LINE") if tag == '"changed"' else BODY
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        breaks = self.path in ("/breaks.jsonl", "/changes.jsonl") and self.asked[self.path] < 3
        self.wfile.write(body[start : start + BREAKS_AFTER] if breaks else body[start:])

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key for the addresses of the tests, in one file."""
    directory = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days=2", "-subj=/CN=localhost"]
    subprocess.run([*command, "-addext", names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    both = directory / "both.pem"
    both.write_text(key.read_text() + cert.read_text())
    return both


@pytest.fixture
def host(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server by its listed name; the same server's other name is listed too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    name, Files.other = f"localhost:{server.server_port}", f"127.0.0.1:{server.server_port}"
    Files.asked, Files.ranges, Files.tokens = Counter(), [], []
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


def refuse(host: str, path: str, root: Path) -> StageError:
    with pytest.raises(StageError) as error:
        fetch(host, path, root)
    return error.value


def test_a_file_is_fetched(host: str, tmp_path: Path) -> None:
    assert fetch(host, "v1/whole.jsonl", tmp_path) == BODY


def test_a_download_whose_connections_break_goes_on_where_it_stood(host: str, tmp_path: Path) -> None:
    assert fetch(host, "breaks.jsonl", tmp_path) == BODY
    assert Files.ranges == [None, f"bytes={BREAKS_AFTER}-", f"bytes={2 * BREAKS_AFTER}-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(host: str, tmp_path: Path) -> None:
    assert fetch(host, "changes.jsonl", tmp_path) == BODY.replace(b"line", b"LINE")


def test_a_busy_server_is_asked_again(host: str, tmp_path: Path) -> None:
    assert fetch(host, "busy.jsonl", tmp_path) == BODY
    assert Files.asked["/busy.jsonl"] == 3


def test_the_token_goes_to_its_host_and_not_along_with_a_redirect(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = refuse(host, "private.jsonl", tmp_path)
    assert (refused.reason, "secretRef" in str(refused)) == ("AccessDenied", True)
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
        ("none.jsonl", "DatasetNotFound", "the server answers 404"),
        ("page.html", "DatasetNotFound", "holds no data files"),
    ],
)
def test_a_refused_or_failed_fetch_has_a_reason(
    host: str, path: str, reason: str, message: str, tmp_path: Path
) -> None:
    refused = refuse(host, path, tmp_path)
    assert refused.reason == reason
    assert message in str(refused)


def test_an_unlisted_host_is_not_even_asked(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_HTTPS_HOSTS", "")
    assert "(none)" in str(refuse(host, "whole.jsonl", tmp_path))
    assert not Files.asked


def test_below_a_listed_domain_private_addresses_are_refused(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = host.rpartition(":")[2]
    monkeypatch.setenv("FINETUNE_HTTPS_HOSTS", f"*.0.0.1:{port}")
    refused = refuse(f"127.0.0.1:{port}", "whole.jsonl", tmp_path)
    assert "which is no public address" in str(refused)
    assert not Files.asked


def test_a_server_that_stays_away_is_worth_a_new_attempt(host: str, tmp_path: Path) -> None:
    Files.asked["/busy.jsonl"] = -10
    assert refuse(host, "busy.jsonl", tmp_path).reason == "SourceUnreachable"
