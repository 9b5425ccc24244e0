"""One request, one answer, nothing raised."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from alfa_cloud.remote.probe import ProbeResult, probe_http
from tests.system import free_port

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    handlers: list[asyncio.Task[None] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        try:
            await answer(await reader.readuntil(b"\r\n\r\n"), writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    tasks = [handler for handler in handlers if handler]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_host_header_and_the_path_are_the_asked_ones() -> None:
    seen: list[bytes] = []

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(answer) as port:
        assert await probe_http("127.0.0.1", port, "shop.example", "/up?x=1") == ProbeResult(204)
    assert seen[0].startswith(b"GET /up?x=1 HTTP/1.1\r\n")
    assert b"Host: shop.example\r\n" in seen[0]


@pytest.mark.parametrize("status", [302, 404, 503])
async def test_other_answers_are_answers(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" % status)

    async with serving(answer) as port:
        result = await probe_http("127.0.0.1", port, "shop.example", "/")
    assert (result.status, result.ok) == (status, status < 400)


async def test_an_endless_body_is_not_read() -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(answer) as port:
        assert await probe_http("127.0.0.1", port, "shop.example", "/") == ProbeResult(200)


async def test_no_answer_has_a_reason() -> None:
    async def silence(_: bytes, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    async def nonsense(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")

    async def hang_up(_: bytes, __: asyncio.StreamWriter) -> None:
        return

    assert await probe_http("127.0.0.1", free_port(), "a", "/") == ProbeResult(0, "refused")
    async with serving(silence) as port:
        assert await probe_http("127.0.0.1", port, "a", "/", timeout_s=0.1) == ProbeResult(0, "timeout")
    async with serving(nonsense) as port:
        assert await probe_http("127.0.0.1", port, "a", "/") == ProbeResult(0, "protocol")
        assert (await probe_http("127.0.0.1", port, "a", "/", tls=True, timeout_s=1)).status == 0
    async with serving(hang_up) as port:
        assert await probe_http("127.0.0.1", port, "a", "/") == ProbeResult(0, "protocol")
    for host_header, path in (("a\r\nX: y", "/"), ("имя", "/"), ("a", "/\n"), ("a", "no-slash")):
        assert (await probe_http("127.0.0.1", 1, host_header, path)).status == 0
