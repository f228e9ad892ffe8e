"""Requests to every route of vLLM, with and without a key: only listed routes are reachable."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from serving.vllm_server import KEY, Server

WITHOUT_KEY = {("GET", path) for path in ("/metrics", "/health", "/readyz", "/finetune/loaded")}
WITH_KEY = {
    ("GET", "/v1/models"),
    *(("POST", f"/v1/{name}") for name in ("chat/completions", "completions", "responses")),
}
OWN = {("GET", "/v1/models/bot")}
"""Routes that only the gateway has."""


@pytest.fixture(scope="module")
def routes() -> list[tuple[str, str]]:
    """All routes of vLLM, with its development settings switched on."""
    hidden = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_PLUGINS": ""}
    completed = subprocess.run(
        [sys.executable, "-m", "serving.vllm_routes"],
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        check=True,
    )
    return [(method, path) for method, path in json.loads(completed.stdout.splitlines()[-1])]


def send_request(server: Server, method: str, path: str, key: str | None, **headers: str) -> int:
    """Return the HTTP status of a well-formed request."""
    body = json.dumps(
        {"model": "bot", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
        | ({"input": "x", "max_output_tokens": 1} if "responses" in path else {"prompt": "hello"})
    )
    sent = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}) | headers
    request = urllib.request.Request(
        f"{server.url}{path}", body.encode() if method == "POST" else None, sent, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def variants(routes: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield every route, and spellings that a server may treat as the same route."""
    for method, template in routes:
        path = template.replace("{", "").replace("}", "")
        for spelling in (
            path,
            f"{path}/",
            f"/{path}",
            f"/v1/..{path}",
            path.upper(),
            f"{path}%2f",
            f"{path};x",
            f"{path}?x=1",
        ):
            yield method, spelling


def test_only_listed_routes_of_vllm_are_reachable(server: Server, routes: list[tuple[str, str]]) -> None:
    assert len(routes) > 50
    assert set(routes) > WITH_KEY
    requests = {*variants(routes), *WITHOUT_KEY, *WITH_KEY, *OWN}
    for key in (None, "wrong", KEY):
        wrong = {}
        for method, path in requests:
            status = send_request(server, method, path, key)
            if status != expected_status(method, path.removesuffix("?x=1"), key):
                wrong[method, path] = status
        assert not wrong, key


def expected_status(method: str, path: str, key: str | None) -> int:
    if (method, path) in WITHOUT_KEY:
        return 200
    if (method, path) not in WITH_KEY | OWN:
        return 404
    return 200 if key == KEY else 401


def test_a_websocket_is_refused(server: Server) -> None:
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert send_request(server, "GET", "/v1/realtime", KEY, **handshake) >= 400
    assert send_request(server, "GET", "/v1/models", KEY) == 200
