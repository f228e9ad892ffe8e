"""A server is drained: clients are sent away with their answers, and what is in flight is waited for."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse

import pytest
from finetune_serving.gateway.drain import marker_of
from ports import find_free_port
from serving.running import KEY, Server
from waiting import wait_for


@contextmanager
def drain(server: Server, port: int, longest: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run what a pod runs before it is told to stop; the server goes on afterwards."""
    command = [sys.executable, "-m", "finetune_serving", f"--root={server.root}", "drain", f"--port={port}"]
    with subprocess.Popen([*command, f"--longest={longest}"]) as process:
        try:
            yield process
        finally:
            process.kill()
            marker_of(server.root).unlink()


@pytest.fixture
def stream(server: Server) -> Iterator[HTTPResponse]:
    """An answer that goes on for some time."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    body = '{"model": "base", "prompt": "x", "stream": true, "max_tokens": 900, "min_tokens": 900}'
    connection.request("POST", "/v1/completions", body, headers)
    yield connection.getresponse()
    connection.close()


def test_answers_close_their_connections_and_streams_are_waited_for(server: Server, stream: HTTPResponse) -> None:
    asking = HTTPConnection("127.0.0.1", server.port, timeout=60)
    assert is_kept(asking)
    with drain(server, server.port, 200) as process:
        wait_for(lambda: not is_kept(asking), "connections to be closed", 30)
        assert stream.read().endswith(b"data: [DONE]\n\n")
        assert process.poll() is None
        assert process.wait(60) == 0
    assert is_kept(asking)
    asking.close()


def test_a_drain_ends_after_its_longest_time(server: Server, stream: HTTPResponse) -> None:
    with drain(server, server.port, 1) as process:
        assert process.wait(60) == 0
        assert b"[DONE]" not in stream.read1()


def test_a_drain_of_a_server_that_is_gone_ends_at_once(server: Server) -> None:
    with drain(server, find_free_port(), 200) as process:
        assert process.wait(60) == 0


def is_kept(connection: HTTPConnection) -> bool:
    """Ask for something, and tell whether the connection is kept open for the next request."""
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    return not answer.will_close
