"""An operation's log, written in batches: gap-free, capped, and fenced.

A batch is one transaction: the lines, how far each detached command's output is in them, and the last `seq`. The head
of a long log is kept, then only counted; the end of it is kept in memory and comes before the terminal state.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory, database_is_away
from alfa_cloud.errors import LeaseLostError
from alfa_cloud.models import Operation
from alfa_cloud.playbooks.playbook import PUT_OFF
from alfa_cloud.services import operations, steps
from alfa_cloud.services.operations import Claim
from alfa_cloud.specs import StepState, Stream

log = structlog.get_logger()

BATCH_S: Final = 0.2
BATCH_LINES: Final = 500
BUFFER_LINES: Final = 4_000
"""Past this a writer waits for the database."""
TAIL_LINES: Final = 500
TAIL_BYTES: Final = 200_000
NOTE_TAIL_LINES: Final = 20
NOTE_TAIL_BYTES: Final = 16_000
"""What is kept of it before a line of our own."""
LEFT_OUT_EVERY_S: Final = 5.0
RETRY_S: Final = 0.5
LAST_FLUSH_S: Final = 3.0

Line = tuple[Stream, datetime, str]


@dataclass
class Tail:
    """The last lines of a log that is past its cap."""

    lines: deque[Line] = field(default_factory=deque)
    size: int = 0
    left_out: int = 0

    def push(self, stream: Stream, at: datetime, texts: Sequence[str]) -> None:
        """Take lines in; the oldest fall out, and are counted."""
        if len(texts) > TAIL_LINES:
            self.left_out += len(texts) - TAIL_LINES
            texts = texts[-TAIL_LINES:]
        for line in texts:
            self.lines.append((stream, at, line))
            self.size += len(line.encode())
        self.shorten(TAIL_LINES, TAIL_BYTES)

    def shorten(self, lines: int, size: int) -> None:
        """Let the oldest fall out, until so many lines and bytes are left."""
        while len(self.lines) > lines or self.size > size:
            self.size -= len(self.lines.popleft()[2].encode())
            self.left_out += 1


class Journal:
    """The log of one claimed operation; use as a context: leaving it writes what is left."""

    def __init__(self, sessions: SessionFactory, claim: Claim, *, max_lines: int, max_bytes: int) -> None:
        self._sessions = sessions
        self._claim = claim
        self._max_lines = max_lines - TAIL_LINES
        self._max_bytes = max_bytes - TAIL_BYTES
        self._seq = claim.last_seq
        self._bytes = claim.log_bytes
        self._buffer: list[Line] = []
        self._checkpoints = dict(claim.checkpoints)
        self._taken = dict(claim.checkpoints)
        """How far this worker has read each command: past the cap that is more than what is stored."""
        self._stored_checkpoints = dict(claim.checkpoints)
        self._warnings = list(claim.warnings)
        self._facts = dict(claim.result)
        self._tail = Tail()
        self._said_left_out_at = 0.0
        self._said_left_out = 0
        self._lock = asyncio.Lock()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Journal:
        self._task = asyncio.create_task(self._flush_often(), name=f"journal {self._claim.operation_id}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST_FLUSH_S):
                await self.flush()
        except (LeaseLostError, TimeoutError):
            log.warning("journal_lines_left", operation_id=str(self._claim.operation_id), lines=len(self._buffer))

    # What SshHost writes to (remote.host.LineSink)

    async def lines(self, stream: Stream, lines: Sequence[str], checkpoint: tuple[str, int] | None = None) -> None:
        """Append lines; waits while the database is behind.

        Raises:
            LeaseLostError: another worker has the operation.
        """
        if checkpoint is not None:
            self._taken[checkpoint[0]] = checkpoint[1]
            if not lines:
                self._checkpoints[checkpoint[0]] = checkpoint[1]
        while len(self._buffer) >= BUFFER_LINES:
            await self.flush()
        room = self._max_lines - self._seq - len(self._buffer)
        now = datetime.now(UTC)
        if room > 0 and self._bytes < self._max_bytes:
            taken = self._append(stream, now, lines[:room])
            if checkpoint is not None and taken == len(lines):
                self._checkpoints[checkpoint[0]] = checkpoint[1]
            lines = lines[taken:]
        if lines:
            self._tail.push(stream, now, lines)
            self._say_left_out(now)
        if len(self._buffer) >= BATCH_LINES:
            self._full.set()

    def checkpoint(self, name: str) -> int:
        """How many bytes of a detached command's output are in the log, or counted as left out."""
        return int(self._taken.get(name, 0))

    async def note(self, line: str) -> None:
        """Append a line of our own; it is kept past every cap, after the last lines before it."""
        self._keep_tail(NOTE_TAIL_LINES, NOTE_TAIL_BYTES)
        self._append(Stream.SYSTEM, datetime.now(UTC), [line])

    async def warn(self, line: str) -> None:
        """Append a line of our own, and keep it among the operation's warnings."""
        if line not in self._warnings:
            self._warnings.append(line)
        await self.note(line)

    async def report(self, **facts: Any) -> None:
        """Keep facts as the operation's result; a later one of the same name replaces an earlier."""
        self._facts |= facts
        await self.flush(_nothing)

    @property
    def facts(self) -> dict[str, Any]:
        """The operation's result so far."""
        return dict(self._facts)

    @property
    def warnings(self) -> list[str]:
        """The warnings so far."""
        return list(self._warnings)

    # What the runner writes

    async def step(self, position: int, state: StepState, title: str | None, progress: float) -> None:
        """Record where a step stands, together with the lines before it; `title` becomes a line.

        Raises:
            LeaseLostError: another worker has the operation.
        """
        values: dict[str, Any] = {"progress": progress}
        if title is not None:
            self._keep_tail(NOTE_TAIL_LINES, NOTE_TAIL_BYTES)
            self._append(Stream.STEP, datetime.now(UTC), [title])
            values["step"] = title[:200]

        async def record(session: AsyncSession) -> None:
            await steps.write_step(session, self._claim, position, state)

        await self.flush(record, **values)

    async def put_off(self, position: int, reason: str, after_s: float, progress: float) -> None:
        """Record that a step waits, why, and until when; how often that was is among the facts.

        Raises:
            LeaseLostError: another worker has the operation.
        """
        moment = datetime.now(UTC) + timedelta(seconds=after_s)
        await self.note(f"{reason} Trying again at {moment:%Y-%m-%d %H:%M:%S} UTC.")
        self._facts[PUT_OFF] = int(self._facts.get(PUT_OFF, 0)) + 1
        await self.step(position, StepState.WAITING, None, progress)

    async def close(self, record: Callable[[AsyncSession], Awaitable[None]]) -> None:
        """Write the rest, the tail and what `record` writes (the terminal state) in one transaction.

        Raises:
            LeaseLostError: another worker has the operation.
        """
        self._keep_tail(TAIL_LINES, TAIL_BYTES)
        await self.flush(record)

    async def flush(self, record: Callable[[AsyncSession], Awaitable[None]] | None = None, **columns: Any) -> None:
        """Write what is buffered; a database that is away is waited for.

        Args:
            record: writes more in the same transaction.
            columns: more of the operation's own.

        Raises:
            LeaseLostError: another worker has the operation.
        """
        async with self._lock:
            batch = self._buffer[:BUFFER_LINES] if record is None else list(self._buffer)
            if not batch and record is None and self._checkpoints == self._stored_checkpoints:
                return
            checkpoints = dict(self._checkpoints)
            write = asyncio.ensure_future(self._write(batch, checkpoints, record, columns))
            try:
                await asyncio.shield(write)
            except asyncio.CancelledError:
                await asyncio.wait([write], timeout=5)
                raise
            finally:
                if write.done() and not write.cancelled() and write.exception() is None:
                    del self._buffer[: len(batch)]
                    self._seq += len(batch)
                    self._stored_checkpoints = checkpoints

    async def _write(
        self,
        batch: list[Line],
        checkpoints: dict[str, int],
        record: Callable[[AsyncSession], Awaitable[None]] | None,
        columns: dict[str, Any],
    ) -> None:
        unsure = False
        while True:
            try:
                async with self._sessions.begin() as session:
                    if unsure and await self._was_committed(session, len(batch)):
                        return
                    await self._store(session, batch, checkpoints, columns)
                    if record is not None:
                        await record(session)
                return
            except Exception as error:
                if not database_is_away(error):
                    raise
                unsure = True
                log.warning("journal_waits_for_database", operation_id=str(self._claim.operation_id))
                await asyncio.sleep(RETRY_S)

    async def _was_committed(self, session: AsyncSession, count: int) -> bool:
        """Whether a batch whose COMMIT got no answer is there: the row tells, it is not guessed."""
        row = await session.get(Operation, self._claim.operation_id)
        if row is None or row.fence != self._claim.fence:
            raise LeaseLostError
        return bool(row.last_seq == self._seq + count and (count > 0 or row.state != "running"))

    async def _store(
        self, session: AsyncSession, batch: list[Line], checkpoints: dict[str, int], columns: dict[str, Any]
    ) -> None:
        last = self._seq + len(batch)
        await operations.write(
            session,
            self._claim,
            last_seq=last,
            log_bytes=self._bytes,
            checkpoints=checkpoints,
            warnings=self._warnings,
            result=self._facts or None,
            **columns,
        )
        if batch:
            await copy_lines(session, self._claim.operation_id, self._seq, batch)
            await session.execute(select(text("pg_notify('alfa_log', :id)")).params(id=str(self._claim.operation_id)))

    def _append(self, stream: Stream, at: datetime, texts: Sequence[str]) -> int:
        """Buffer lines while the byte cap allows; how many were taken."""
        taken = 0
        bounded = stream in (Stream.STDOUT, Stream.STDERR)
        for line in texts:
            if bounded and self._bytes >= self._max_bytes:
                break
            self._buffer.append((stream, at, line))
            self._bytes += len(line.encode())
            taken += 1
        return taken

    def _keep_tail(self, lines: int, size: int) -> None:
        """Put the last lines of a log that is past its cap behind what is stored, and say how many are missing."""
        self._tail.shorten(lines, size)
        if self._tail.left_out:
            self._append(Stream.SYSTEM, datetime.now(UTC), [f"{self._tail.left_out} lines were left out here."])
        self._buffer.extend(self._tail.lines)
        self._bytes += self._tail.size
        self._tail = Tail()
        self._said_left_out = 0

    def _say_left_out(self, now: datetime) -> None:
        if self._tail.left_out == self._said_left_out or time.monotonic() < self._said_left_out_at + LEFT_OUT_EVERY_S:
            return
        self._said_left_out_at = time.monotonic()
        self._said_left_out = self._tail.left_out
        self._append(Stream.SYSTEM, now, [f"The log is full; {self._tail.left_out} lines left out so far."])

    async def _flush_often(self) -> None:
        while True:
            try:
                async with asyncio.timeout(BATCH_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            try:
                await self.flush()
            except LeaseLostError:
                return
            except Exception:
                log.exception("journal_flush_failed", operation_id=str(self._claim.operation_id))
                return


async def _nothing(_: AsyncSession) -> None:
    """Nothing beside the lines and the columns."""


async def copy_lines(session: AsyncSession, operation_id: UUID, seq: int, batch: Sequence[Line]) -> None:
    """Insert lines after `seq` by COPY, within the session's transaction."""
    connection = await session.connection()
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    await driver.copy_records_to_table(
        "operation_lines",
        records=[(operation_id, seq + n, at, str(stream), line) for n, (stream, at, line) in enumerate(batch, 1)],
        columns=["operation_id", "seq", "at", "stream", "text"],
    )
