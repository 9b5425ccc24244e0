"""A page of 50 out of 10,000 clients, beside a bare Starlette handler that sends the same bytes."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.factories import HOST_KEY
from tests.system import LOGIN, PASSWORD, free_port

from benchmarks.cloud import Cloud, running
from benchmarks.figures import Figure, median

CLIENTS = 10_000
REQUESTS = 300
ROUNDS = 3
AT_ONCE = 8
FILL = f"""
INSERT INTO servers (name, host, database_engine, base_domain, tls, host_key)
SELECT 'server-' || n, 'server-' || n || '.test', 'postgresql', 'cloud.test', 'none', '{HOST_KEY}'
  FROM generate_series(1, 100) AS n;
INSERT INTO clients (uid, name, title, email, domain, owner_login, server_id, image, version, status, port, available,
                     activated_at, app_key, database_password)
SELECT gen_random_uuid(), 'lab-' || n, 'Лаборатория №' || n, 'lab@example.org', 'lab-' || n || '.cloud.test',
       'owner@example.org', s.id, '1.4.2-master', '1.4.2', 'active', 20000 + n, true, now(), '', ''
  FROM generate_series(1, {CLIENTS}) AS n JOIN servers AS s ON s.name = 'server-' || (1 + n % 100);
ANALYZE;
"""


class Connection:
    """HTTP/1.1 on one socket, as little as a measurement needs: a client must cost less than what it measures."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
        self._reader = reader
        self._writer = writer
        login = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
        head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {login}\r\n\r\n"
        self._request = head.encode()

    async def get(self) -> bytes:
        """The body of an answer 200."""
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return await self._reader.readexactly(int(length.partition(b":")[2]))

    async def close(self) -> None:
        """The socket is closed."""
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def connected(port: int, target: str) -> AsyncIterator[Connection]:
    """A connection to a local server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    connection = Connection(reader, writer, target)
    try:
        yield connection
    finally:
        await connection.close()


async def one_by_one(port: int, target: str, count: int) -> list[float]:
    """Milliseconds of each request, one after the other."""
    found = []
    async with connected(port, target) as connection:
        for _ in range(count):
            began = time.perf_counter()
            await connection.get()
            found.append((time.perf_counter() - began) * 1000)
    return found


async def at_once(port: int, target: str, count: int) -> float:
    """Milliseconds that a request takes of the server's time, with several connections that never rest."""
    began = time.perf_counter()
    await asyncio.gather(*(one_by_one(port, target, count // AT_ONCE) for _ in range(AT_ONCE)))
    return (time.perf_counter() - began) * 1000 / count


@asynccontextmanager
async def bare_server(body: bytes) -> AsyncIterator[int]:
    """The port of a process that sends these bytes."""
    port = free_port()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "body"
        file.write_bytes(body)
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare", str(port), str(file)])
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        async with connected(port, "/clients") as connection:
                            assert await connection.get() == body
                        break
                    except OSError:
                        await asyncio.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait()


async def compare(cloud: Cloud, target: str) -> tuple[list[float], list[float], list[float], list[float]]:
    """Ours one by one and at once, then the peer's, all in milliseconds; by turns."""
    ours = cloud.system.port
    async with connected(ours, target) as connection:
        body = await connection.get()
    found: tuple[list[float], list[float], list[float], list[float]] = ([], [], [], [])
    async with bare_server(body) as bare:
        for port in (ours, bare):
            await one_by_one(port, target, 20)
        for _ in range(ROUNDS):
            found[0].extend(await one_by_one(ours, target, REQUESTS // ROUNDS))
            found[2].extend(await one_by_one(bare, target, REQUESTS // ROUNDS))
            found[1].append(await at_once(ours, target, REQUESTS // ROUNDS))
            found[3].append(await at_once(bare, target, REQUESTS))
    return found


async def run() -> list[Figure]:
    """One API process, one bare process, the same client."""
    async with running(servers=0) as cloud:
        cloud.sql(FILL)
        ours, ours_at_once, bare, bare_at_once = await compare(cloud, "/clients?page[size]=50")
        first, *_ = await compare(cloud, "/clients?page[size]=1")
    return [
        Figure("a page of 50, one by one, median", median(ours), median(bare), "ms", "peer"),
        Figure(f"a page of 50, {AT_ONCE} at once, each", median(ours_at_once), median(bare_at_once), "ms", "peer"),
        Figure("a page of 50 beside a page of 1, median", median(ours), median(first), "ms", "peer"),
    ]
