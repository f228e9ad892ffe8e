"""The operator's client for pods against a hostile server: it limits time and memory, and ignores wrong answers."""

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic

from finetune_api.contract.routes import MAX_LOADED_BYTES
from finetune_api.meta import METRICS_PORT, SERVER_PORT
from finetune_operator.controller.pod_client import PodClient, open_session
from fuzz.conftest import Budget

METRICS = b"finetune_train_step 1\nfinetune_train_steps 5\n"
LOADED = b'{"models": []}'
_HONEST = "127.0.2.1"
_MAX_SECONDS = 6.0
_MAX_MEMORY = 16 << 20
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def head(*lines: str, status: str = "200 OK") -> bytes:
    """Return the status line and headers of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def whole(body: bytes, *lines: str, status: str = "200 OK") -> Answer:
    """Return a handler that answers completely at once."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head(f"Content-Length: {len(body)}", *lines, status=status) + body)

    return answer


def endless(first: bytes, part: bytes, seconds: float = 0.0) -> Answer:
    """Return a handler that sends without end."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(seconds)

    return answer


async def silent(_: asyncio.StreamWriter) -> None:
    """Send nothing."""
    await asyncio.sleep(60)


BOMB = gzip.compress(b"\0" * (256 << 20))
INVALID_ANSWERS: dict[str, Answer] = {
    "nothing": silent,
    "an empty body": whole(b""),
    "not HTTP": endless(b"\0\x01garbage", b"\xff" * 1000),
    "headers without end": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"b" * 1000 + b"\r\n"),
    "one header without end": endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 10_000),
    "a body without end": endless(head("Transfer-Encoding: chunked"), b"2710\r\n" + b"a" * 10_000 + b"\r\n"),
    "a body that trickles": endless(head("Content-Length: 1000000"), b"a", 0.05),
    "an invalid chunk size": endless(head("Transfer-Encoding: chunked"), b"zz\r\na\r\n"),
    "a chunk too large": endless(head("Transfer-Encoding: chunked"), b"7fffffffffffffff\r\naaaa"),
    "a body that is too short": whole(METRICS, "Content-Length: 999999"),
    "a redirect": whole(b"", f"Location: http://{_HONEST}:{METRICS_PORT}/metrics", status="302 Found"),
    "a redirect to a file": whole(b"", "Location: file:///etc/passwd", status="307 Temporary Redirect"),
    "an error": whole(METRICS, status="500 Internal Server Error"),
    "a continuation without end": endless(b"", head(status="100 Continue")),
    "gzip": whole(gzip.compress(METRICS), "Content-Encoding: gzip"),
    "a gzip bomb": whole(BOMB, "Content-Encoding: gzip"),
    "invalid gzip": whole(METRICS[:-4], "Content-Encoding: gzip"),
    "a body too large": whole(METRICS + b"#" * MAX_LOADED_BYTES),
    "bytes that are not text": whole(bytes(range(256)) * 100, "Content-Type: text/plain; charset=utf-99"),
    "a negative length": whole(b"", "Content-Length: -5"),
}


@asynccontextmanager
async def serve(address: str, answer: Answer) -> AsyncIterator[None]:
    """Answer on both ports of a pod."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
            await writer.drain()
        writer.close()

    servers = [await asyncio.start_server(handle, address, port) for port in (METRICS_PORT, SERVER_PORT)]
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def test_invalid_answers_of_pods_are_ignored(budget: Budget) -> None:
    budget.count("hostile_reports", 2 * len(INVALID_ANSWERS))
    pods_by_address = {f"127.0.1.{number}": name for number, name in enumerate(INVALID_ANSWERS, 1)}
    async with open_session() as session, AsyncExitStack() as stack:
        for address, name in pods_by_address.items():
            await stack.enter_async_context(serve(address, INVALID_ANSWERS[name]))
        await stack.enter_async_context(serve(_HONEST, whole(METRICS)))
        pods = PodClient(session)
        started = monotonic()
        tracemalloc.start()
        try:
            reads = [read(address) for address in pods_by_address for read in (pods.read_progress, pods.read_loaded)]
            answers = await asyncio.gather(*reads)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    accepted = {
        name: values
        for name, values in zip(INVALID_ANSWERS, zip(answers[::2], answers[1::2], strict=True), strict=True)
        if any(values)
    }
    assert not accepted
    assert monotonic() - started < _MAX_SECONDS
    assert peak < _MAX_MEMORY


async def test_a_valid_answer_of_a_pod_is_accepted() -> None:
    async with open_session() as session, serve(_HONEST, whole(METRICS)):
        progress = await PodClient(session).read_progress(_HONEST)
    assert progress is not None
    assert progress.step == 1
    async with open_session() as session, serve(_HONEST, whole(LOADED, "Set-Cookie: a=b")):
        assert await PodClient(session).read_loaded(_HONEST) is not None
        assert not list(session.cookie_jar)
