"""Operations and their logs, as they are read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import OperationNotFoundError
from alfa_cloud.events import Listener, wait_set
from alfa_cloud.models import Operation, OperationEvent, OperationLine, OperationStep
from alfa_cloud.services.listing import ListQuery, Page, fetch_page, parse_ids, parse_uuids, parse_words
from alfa_cloud.specs import TERMINAL_STATES, OperationKind, OperationState

SORTS: Final = {
    "id": Operation.id,
    "kind": Operation.kind,
    "state": Operation.state,
    "created_at": Operation.created_at,
    "started_at": Operation.started_at,
    "finished_at": Operation.finished_at,
}
FILTERS: Final = ("state", "kind", "client", "server", "parent")
PAGE_LINES: Final = 1000
LOOK_AGAIN_S: Final = 5.0
"""A waiting reader looks by itself this often, should a notification be lost."""


async def get_operation(session: AsyncSession, operation_id: UUID) -> Operation:
    """The operation.

    Raises:
        OperationNotFoundError: there is none.
    """
    operation = await session.get(Operation, operation_id)
    if operation is None:
        raise OperationNotFoundError(f"There is no operation {operation_id}.")
    return operation


async def list_operations(session: AsyncSession, asked: ListQuery) -> Page[Operation]:
    """A page of operations, the newest first.

    Raises:
        FilterError: a filter's value is of the wrong form.
    """
    query: Select[tuple[Operation]] = select(Operation)
    for name, known in (("state", OperationState), ("kind", OperationKind)):
        if name in asked.filters:
            query = query.where(getattr(Operation, name).in_(parse_words(name, asked.filters[name], known)))
    for name, number in (("client", Operation.client_id), ("server", Operation.server_id)):
        if name in asked.filters:
            query = query.where(number.in_(parse_ids(name, asked.filters[name])))
    if "parent" in asked.filters:
        query = query.where(Operation.parent_id.in_(parse_uuids("parent", asked.filters["parent"])))
    default = (("created_at", True),)
    return await fetch_page(session, query, asked, sorts=SORTS, default=default, tie=Operation.id)


async def steps_of(session: AsyncSession, operation_ids: Sequence[UUID]) -> dict[UUID, list[OperationStep]]:
    """The steps of each of these operations, in order."""
    rows = await session.scalars(
        select(OperationStep)
        .where(OperationStep.operation_id.in_(operation_ids))
        .order_by(OperationStep.operation_id, OperationStep.position)
    )
    found: dict[UUID, list[OperationStep]] = {operation_id: [] for operation_id in operation_ids}
    for row in rows:
        found[row.operation_id].append(row)
    return found


async def queue_positions(session: AsyncSession, found: Sequence[Operation]) -> dict[UUID, int]:
    """How many operations of the same server wait before each of these that is queued; 0 is the next."""
    positions = {}
    for operation in found:
        if operation.state != OperationState.QUEUED:
            continue
        positions[operation.id] = (
            await session.scalar(
                select(func.count())
                .select_from(Operation)
                .where(
                    Operation.state == OperationState.QUEUED,
                    Operation.server_id == operation.server_id,
                    Operation.created_at < operation.created_at,
                )
            )
            or 0
        )
    return positions


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log; `seq` counts within the log that was asked for."""

    seq: int
    at: datetime
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class LogPart:
    """What a log holds after some line, and where its last operation stands.

    Args:
        last_seq: the number of the last line that is stored.
    """

    operation: Operation
    lines: list[Line]
    last_seq: int

    @property
    def completed(self) -> str | None:
        """The word that the admin page polls for."""
        return completed(self.operation)

    @property
    def drained(self) -> bool:
        """Whether nothing follows these lines."""
        shown = self.lines[-1].seq if self.lines else self.last_seq
        return self.completed is not None and shown >= self.last_seq


def completed(operation: Operation) -> str | None:
    """None while it goes on, then `ok` or `error`."""
    state = OperationState(operation.state)
    if not state.terminal:
        return None
    return "ok" if state is OperationState.OK else "error"


async def read_log(session: AsyncSession, operation_ids: Sequence[UUID], after_seq: int) -> LogPart:
    """The next lines of a log that runs over these operations, one after the other.

    Args:
        operation_ids: in order, at least one; all but the last have ended, so that their lengths are final.
        after_seq: the last line that the reader has; 0 is none.

    Raises:
        OperationNotFoundError: the last one is not there.
    """
    rows = await session.scalars(
        select(Operation).where(Operation.id.in_(operation_ids)).execution_options(populate_existing=True)
    )
    found = {row.id: row for row in rows}
    if operation_ids[-1] not in found:
        raise OperationNotFoundError("The operation of this log is gone.")
    lines: list[Line] = []
    base = 0
    for operation_id in operation_ids:
        length = found[operation_id].last_seq if operation_id in found else 0
        if base + length > after_seq and len(lines) < PAGE_LINES:
            lines += await _lines(
                session, operation_id, base=base, after_seq=after_seq, length=length, limit=PAGE_LINES - len(lines)
            )
        base += length
    return LogPart(found[operation_ids[-1]], lines, base)


async def _lines(
    session: AsyncSession, operation_id: UUID, *, base: int, after_seq: int, length: int, limit: int
) -> list[Line]:
    rows = await session.execute(
        select(OperationLine.seq, OperationLine.at, OperationLine.stream, OperationLine.text)
        .where(
            OperationLine.operation_id == operation_id,
            OperationLine.seq > max(0, after_seq - base),
            OperationLine.seq <= length,
        )
        .order_by(OperationLine.seq)
        .limit(limit)
    )
    return [Line(base + row.seq, row.at, row.stream, row.text) for row in rows]


async def wait_for_log(
    sessions: SessionFactory, listener: Listener, operation_ids: Sequence[UUID], after_seq: int, wait_s: float
) -> LogPart:
    """The next lines of a log, waiting for them if there are none yet; holds no session while it waits."""
    deadline = time.monotonic() + wait_s
    async with listener.watch(operation_ids[-1]) as event:
        while True:
            async with sessions() as session:
                part = await read_log(session, operation_ids, after_seq)
            left = deadline - time.monotonic()
            if part.lines or part.completed is not None or left <= 0:
                return part
            await wait_set(event, min(left, LOOK_AGAIN_S))


async def follow_log(
    sessions: SessionFactory, listener: Listener, operation_ids: Sequence[UUID], after_seq: int
) -> AsyncIterator[LogPart]:
    """Each next part of a log, to its end; the last part is drained."""
    async with listener.watch(operation_ids[-1]) as event:
        while True:
            async with sessions() as session:
                part = await read_log(session, operation_ids, after_seq)
            if part.lines or part.drained:
                yield part
            if part.drained:
                return
            if part.lines:
                after_seq = part.lines[-1].seq
            else:
                await wait_set(event, LOOK_AGAIN_S)


async def wait_for_end(sessions: SessionFactory, listener: Listener, operation_id: UUID, wait_s: float) -> bool:
    """Whether an operation has ended within some seconds; holds no session while it waits."""
    deadline = time.monotonic() + wait_s
    async with listener.watch(operation_id) as event:
        while True:
            async with sessions() as session:
                state = await session.scalar(select(Operation.state).where(Operation.id == operation_id))
            if state is None or state in TERMINAL_STATES:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await wait_set(event, min(left, LOOK_AGAIN_S))


@dataclass(frozen=True, slots=True)
class StateChange:
    """An operation's change of state, with the operation as it is now."""

    id: int
    state: str
    at: datetime
    operation: Operation


async def last_event_id(session: AsyncSession) -> int:
    """The number of the newest change."""
    return await session.scalar(select(func.max(OperationEvent.id))) or 0


async def events_after(session: AsyncSession, after: int, limit: int = 500) -> list[StateChange]:
    """The changes after one, in the order of their commits."""
    rows = await session.execute(
        select(OperationEvent, Operation)
        .join(Operation, Operation.id == OperationEvent.operation_id)
        .where(OperationEvent.id > after)
        .order_by(OperationEvent.id)
        .limit(limit)
    )
    return [StateChange(event.id, event.state, event.at, operation) for event, operation in rows]


async def follow_events(sessions: SessionFactory, listener: Listener, after: int | None) -> AsyncIterator[StateChange]:
    """Every change from now on, or after one that the reader has; for ever."""
    async with listener.watch() as event:
        async with sessions() as session:
            position = await last_event_id(session) if after is None else after
        while True:
            async with sessions() as session:
                changes = await events_after(session, position)
            for change in changes:
                yield change
                position = change.id
            if not changes:
                await wait_set(event, LOOK_AGAIN_S)


@dataclass(frozen=True, slots=True)
class OperationView:
    """An operation with all that is shown of it."""

    operation: Operation
    steps: list[OperationStep]
    queue_position: int | None
    children: dict[str, int]
    """How many children are in each state."""


async def views(session: AsyncSession, found: Sequence[Operation]) -> list[OperationView]:
    """These operations with their steps, places in the queue and counts of children."""
    ids = [operation.id for operation in found]
    steps = await steps_of(session, ids)
    positions = await queue_positions(session, found)
    rows = await session.execute(
        select(Operation.parent_id, Operation.state, func.count())
        .where(Operation.parent_id.in_(ids))
        .group_by(Operation.parent_id, Operation.state)
    )
    children: dict[UUID, dict[str, int]] = {}
    for parent_id, state, number in rows:
        if parent_id is not None:
            children.setdefault(parent_id, {})[state] = number
    return [OperationView(one, steps[one.id], positions.get(one.id), children.get(one.id, {})) for one in found]
