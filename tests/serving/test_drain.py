"""Draining a server closes its connections after their responses, and waits for requests in flight."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse

import pytest
from finetune.local.ports import find_free_port
from finetune_serving.gateway.drain import build_drain_marker_path
from serving.vllm_server import KEY, Server
from waiting import wait_for


@contextmanager
def drain(server: Server, port: int, longest: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the pod's preStop hook; the server keeps running afterwards."""
    command = [sys.executable, "-m", "finetune_serving", f"--root={server.root}", "drain", f"--port={port}"]
    with subprocess.Popen([*command, f"--longest={longest}"]) as process:
        try:
            yield process
        finally:
            process.kill()
            build_drain_marker_path(server.root).unlink()


@pytest.fixture
def stream(server: Server) -> Iterator[HTTPResponse]:
    """A stream that takes some time."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    body = '{"model": "base", "prompt": "x", "stream": true, "max_tokens": 900, "min_tokens": 900}'
    connection.request("POST", "/v1/completions", body, headers)
    yield connection.getresponse()
    connection.close()


def test_a_drain_closes_connections_and_waits_for_streams(server: Server, stream: HTTPResponse) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    assert stays_open(connection)
    with drain(server, server.port, 200) as process:
        wait_for(lambda: not stays_open(connection), "connections to be closed", 30)
        assert stream.read().endswith(b"data: [DONE]\n\n")
        assert process.poll() is None
        assert process.wait(60) == 0
    assert stays_open(connection)
    connection.close()


def test_a_drain_returns_after_its_longest_time(server: Server, stream: HTTPResponse) -> None:
    with drain(server, server.port, 1) as process:
        assert process.wait(60) == 0
        assert b"[DONE]" not in stream.read1()


def test_a_drain_without_a_running_server_returns_at_once(server: Server) -> None:
    with drain(server, find_free_port(), 200) as process:
        assert process.wait(60) == 0


def stays_open(connection: HTTPConnection) -> bool:
    """Send a request, and return whether the server keeps the connection open for the next one."""
    connection.request("GET", "/health")
    response = connection.getresponse()
    response.read()
    assert response.status == 200
    return not response.will_close
