"""What a fleet command shows of its course: its result, its steps, its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.events import LOG_CHANNEL
from alfa_cloud.models import Operation, OperationLine, OperationStep
from alfa_cloud.services.fleet_course import Row
from alfa_cloud.specs import OperationState, StepState, Stream


class Record:
    """The rows of a fleet command, and what is written of them; the caller holds the parent's row locked."""

    def __init__(self, parent: Operation) -> None:
        result = dict(parent.result or {})
        self._parent = parent
        self.rows = [Row(**row) for row in result.pop("rows", ())]
        self.facts = result
        self._stored = [(row.state, row.operation_id) for row in self.rows]
        self._steps = [row.step_state for row in self.rows]
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """A line of the log."""
        self._lines.append(line)

    def say_end(self, row: Row) -> None:
        """How a target ended."""
        if row.error is None:
            self.say(f"{row.name}: {row.state}")
            return
        where = f" in “{row.error['step']}”" if row.error["step"] else ""
        self.say(f"{row.name}: {row.state}{where}: {row.error['message']}")

    def say_once(self, reason: str) -> None:
        """Why nothing else starts; only the first reason counts."""
        if "stopped" not in self.facts:
            self.facts["stopped"] = reason
            self.say(f"Nothing else is started. {reason}")

    async def write(self, session: AsyncSession, counts: Mapping[str, int]) -> None:
        """What has changed since the last time is in the database."""
        stored = [(row.state, row.operation_id) for row in self.rows]
        if stored == self._stored and not self._lines and "counts" in self.facts:
            return
        self._stored = stored
        self.facts["counts"] = dict(counts)
        await self._write_steps(session)
        await self._write_lines(session)
        parent = self._parent
        parent.result = {"rows": [asdict(row) for row in self.rows], **self.facts}
        ended = sum(row.ended for row in self.rows)
        parent.progress = ended / len(self.rows) if self.rows else 1.0
        running = next((row.name for row in self.rows if row.state == OperationState.RUNNING), None)
        parent.step = running or parent.step
        await session.flush()

    async def _write_steps(self, session: AsyncSession) -> None:
        for position, row in enumerate(self.rows):
            if row.step_state is self._steps[position]:
                continue
            self._steps[position] = row.step_state
            begun = func.coalesce(OperationStep.started_at, func.clock_timestamp())
            over = None if row.step_state is StepState.RUNNING else func.clock_timestamp()
            await session.execute(
                update(OperationStep)
                .where(OperationStep.operation_id == self._parent.id, OperationStep.position == position)
                .values(state=row.step_state, started_at=begun, finished_at=over)
                .execution_options(synchronize_session=False)
            )

    async def _write_lines(self, session: AsyncSession) -> None:
        if not self._lines:
            return
        parent, first = self._parent, self._parent.last_seq + 1
        rows = [
            {"operation_id": parent.id, "seq": seq, "stream": Stream.SYSTEM, "text": line}
            for seq, line in enumerate(self._lines, first)
        ]
        await session.execute(insert(OperationLine), rows)
        parent.last_seq += len(rows)
        parent.log_bytes += sum(len(line.encode()) for line in self._lines)
        await session.execute(select(func.pg_notify(LOG_CHANNEL, str(parent.id))))
        self._lines = []
