"""The operator's client for pods against a real server that does what it likes: never long, large or fooled."""

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
_LONGEST_SECONDS = 6.0
_MOST_MEMORY = 16 << 20
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def head(*lines: str, status: str = "200 OK") -> bytes:
    """Return the beginning of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def whole(body: bytes, *lines: str, status: str = "200 OK") -> Answer:
    """Return what answers at once."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head(f"Content-Length: {len(body)}", *lines, status=status) + body)

    return answer


def endless(first: bytes, part: bytes, seconds: float = 0.0) -> Answer:
    """Return what never ends."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(seconds)

    return answer


async def silent(_: asyncio.StreamWriter) -> None:
    """Answer nothing."""
    await asyncio.sleep(60)


BOMB = gzip.compress(b"\0" * (256 << 20))
NOTHING: dict[str, Answer] = {
    "nothing": silent,
    "an end at once": whole(b""),
    "no HTTP": endless(b"\0\x01garbage", b"\xff" * 1000),
    "headers without end": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"b" * 1000 + b"\r\n"),
    "one header without end": endless(b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 10_000),
    "a body without end": endless(head("Transfer-Encoding: chunked"), b"2710\r\n" + b"a" * 10_000 + b"\r\n"),
    "a body that trickles": endless(head("Content-Length: 1000000"), b"a", 0.05),
    "a chunk of a size that is none": endless(head("Transfer-Encoding: chunked"), b"zz\r\na\r\n"),
    "a chunk too large": endless(head("Transfer-Encoding: chunked"), b"7fffffffffffffff\r\naaaa"),
    "a body that is shorter": whole(METRICS, "Content-Length: 999999"),
    "a redirect": whole(b"", f"Location: http://{_HONEST}:{METRICS_PORT}/metrics", status="302 Found"),
    "a redirect to a file": whole(b"", "Location: file:///etc/passwd", status="307 Temporary Redirect"),
    "an error": whole(METRICS, status="500 Internal Server Error"),
    "a continuation without end": endless(b"", head(status="100 Continue")),
    "gzip": whole(gzip.compress(METRICS), "Content-Encoding: gzip"),
    "a gzip bomb": whole(BOMB, "Content-Encoding: gzip"),
    "gzip that is none": whole(METRICS[:-4], "Content-Encoding: gzip"),
    "a body too large": whole(METRICS + b"#" * MAX_LOADED_BYTES),
    "bytes that are no text": whole(bytes(range(256)) * 100, "Content-Type: text/plain; charset=utf-99"),
    "a length below nothing": whole(b"", "Content-Length: -5"),
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


async def test_improper_answers_of_pods_are_ignored(budget: Budget) -> None:
    budget.count("hostile_reports", 2 * len(NOTHING))
    pods_by_address = {f"127.0.1.{number}": what for number, what in enumerate(NOTHING, 1)}
    async with open_session() as session, AsyncExitStack() as stack:
        for address, what in pods_by_address.items():
            await stack.enter_async_context(serve(address, NOTHING[what]))
        await stack.enter_async_context(serve(_HONEST, whole(METRICS)))
        pods = PodClient(session)
        began = monotonic()
        tracemalloc.start()
        try:
            asked = [ask(address) for address in pods_by_address for ask in (pods.read_progress, pods.read_loaded)]
            answers = await asyncio.gather(*asked)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    told = {
        what: told
        for what, told in zip(NOTHING, zip(answers[::2], answers[1::2], strict=True), strict=True)
        if any(told)
    }
    assert not told
    assert monotonic() - began < _LONGEST_SECONDS
    assert peak < _MOST_MEMORY


async def test_a_pod_that_answers_properly_is_believed() -> None:
    async with open_session() as session, serve(_HONEST, whole(METRICS)):
        progress = await PodClient(session).read_progress(_HONEST)
    assert progress is not None
    assert progress.step == 1
    async with open_session() as session, serve(_HONEST, whole(LOADED, "Set-Cookie: a=b")):
        assert await PodClient(session).read_loaded(_HONEST) is not None
        assert not list(session.cookie_jar)
