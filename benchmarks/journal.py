"""What the journal costs beside a bare COPY of the same records into an equal table of the same PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession
from tests.factories import make_operation, make_server

from alfa_cloud import schema
from alfa_cloud.db import SessionFactory, make_engine, make_session_factory
from alfa_cloud.jobs.journal import Journal
from alfa_cloud.remote.process import READ_BYTES
from alfa_cloud.services import operations
from alfa_cloud.services.operations import Claim
from alfa_cloud.specs import OperationState, Stream
from benchmarks.cloud import stores
from benchmarks.figures import Figure, median

LINES = 200_000
ROUNDS = 3
TEXT = "{:07} Copying vendor/laravel/framework/src/Illuminate/Database: done"
PEER = """
CREATE TABLE bare_lines (LIKE operation_lines INCLUDING ALL);
ALTER TABLE bare_lines ADD FOREIGN KEY (operation_id) REFERENCES operations ON DELETE CASCADE;
"""


async def claimed(sessions: SessionFactory) -> Claim:
    """A fresh operation that this process holds."""
    async with sessions.begin() as session:
        operation = await make_operation(session, server_id=(await make_server(session)).id)
    async with sessions.begin() as session:
        claim = await operations.claim(session, operation.id, "benchmark", 600)
    assert claim is not None
    return claim


async def through_journal(sessions: SessionFactory, chunks: list[list[str]]) -> float:
    """Seconds until all lines and the operation's end are committed."""
    claim = await claimed(sessions)

    async def finish(session: AsyncSession) -> None:
        await operations.finish(session, claim, OperationState.OK)

    began = time.perf_counter()
    async with Journal(sessions, claim, max_lines=10 * LINES, max_bytes=10**10) as journal:
        for lines in chunks:
            await journal.lines(Stream.STDOUT, lines)
        await journal.close(finish)
    return time.perf_counter() - began


async def bare_copy(connection: Any, operation_id: UUID, texts: list[str]) -> float:
    """Seconds of one COPY, the making of its records included."""
    began = time.perf_counter()
    now = datetime.now(UTC)
    records = [(operation_id, number, now, "stdout", text) for number, text in enumerate(texts, 1)]
    columns = ["operation_id", "seq", "at", "stream", "text"]
    await connection.copy_records_to_table("bare_lines", records=records, columns=columns)
    return time.perf_counter() - began


async def run() -> list[Figure]:
    """Both, by turns; the lines come in chunks of what one read from SSH gives at most."""
    texts = [TEXT.format(number) for number in range(LINES)]
    size = READ_BYTES // (len(texts[0]) + 1)
    chunks = [texts[start : start + size] for start in range(0, LINES, size)]
    ours, theirs = [], []
    async with stores() as (_, postgres, _redis):
        await asyncio.to_thread(schema.upgrade, postgres.url)
        postgres.psql(PEER)
        engine = make_engine(postgres.url)
        sessions = make_session_factory(engine)
        dsn = make_url(postgres.url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(dsn)
        try:
            for _ in range(ROUNDS):
                ours.append(await through_journal(sessions, chunks))
                theirs.append(await bare_copy(connection, (await claimed(sessions)).operation_id, texts))
            counts = postgres.psql("SELECT (SELECT count(*) FROM operation_lines), (SELECT count(*) FROM bare_lines)")
            assert counts == f"{ROUNDS * LINES}|{ROUNDS * LINES}", counts
        finally:
            await connection.close()
            await engine.dispose()
    return [Figure(f"{LINES:,} lines beside a bare COPY, median", median(ours), median(theirs), "s", "peer")]
