"""Fleet commands: a parent whose children do the work, each on one client or server.

A parent runs from the start, without a lease: no worker claims it, and it holds no lock. Whoever sees a child begin or
end calls `advance`; where that call is lost, the reconciler makes it. Rows are locked in this order: the parent, then
clients or children in the order of their ids; never a parent while a child's row is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import AlfaCloudError, NotRetryableError
from alfa_cloud.models import Client, Operation, OperationStep, Server
from alfa_cloud.services import endings, fleet_children, operations
from alfa_cloud.services.fleet_course import Course, Limits, Row
from alfa_cloud.services.fleet_record import Record
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import FLEET_KINDS, OperationKind, OperationState, StepState

ONE_BY_ONE: Final = (OperationKind.DEPLOY, OperationKind.PRUNE)
"""Kinds that do one target of a server at a time, unless they are told otherwise."""
PRUNED: Final = {"removed": [], "freed_bytes": 0}
"""What a row shows of a prune, and what it says where nothing was to be removed."""


async def request(
    session: AsyncSession,
    kind: OperationKind,
    caller: Caller,
    rows: Sequence[Row],
    *,
    server_id: int | None,
    limits: Limits | None = None,
    params: Mapping[str, Any] | None = None,
    retry_of: UUID | None = None,
) -> Operation:
    """A fleet command that has begun; or the equal one that is the last unfinished of its server.

    Args:
        rows: its targets, in the order of their ids; a server's own row goes first.
        params: what its children are given.
    """
    values = {
        "targets": [int(row.client_id or row.server_id) for row in rows],
        "limits": (limits or Limits()).as_dict(),
        **(params or {}),
    }
    operation, is_new = await operations.request(
        session, kind, caller, server_id=server_id, params=values, retry_of=retry_of
    )
    if is_new:
        operation.result = {"rows": [asdict(row) for row in rows]}
        session.add_all(
            OperationStep(
                operation_id=operation.id,
                position=position,
                name="client" if row.client_id else "server",
                title=row.name,
                state=StepState.PENDING,
            )
            for position, row in enumerate(rows)
        )
        await operations.start_parent(session, operation)
        await advance(session, operation.id)
        await session.refresh(operation)
    return operation


async def unfinished(session: AsyncSession) -> list[UUID]:
    """The fleet commands that run, the oldest first."""
    query = select(Operation.id).where(Operation.state == OperationState.RUNNING, Operation.kind.in_(FLEET_KINDS))
    return list(await session.scalars(query.order_by(Operation.created_at, Operation.id)))


async def parent_of(session: AsyncSession, operation_id: UUID) -> UUID | None:
    """The unfinished fleet command that an operation is, or is a part of."""
    known = select(func.coalesce(Operation.parent_id, Operation.id)).where(Operation.id == operation_id)
    query = select(Operation.id).where(
        Operation.id == known.scalar_subquery(),
        Operation.state == OperationState.RUNNING,
        Operation.kind.in_(FLEET_KINDS),
    )
    return await session.scalar(query)


async def lock(session: AsyncSession, parent_id: UUID) -> Operation | None:
    """A fleet command, its row held to the end of the transaction; rows that refer to it can still be made."""
    query = select(Operation).where(Operation.id == parent_id, Operation.kind.in_(FLEET_KINDS))
    return await session.scalar(query.with_for_update(key_share=True).execution_options(populate_existing=True))


async def advance(session: AsyncSession, parent_id: UUID) -> list[UUID]:
    """What became of the children is in the parent, the next ones are there, and it has ended if all have.

    Returns:
        The new children, to ring for.
    """
    parent = await lock(session, parent_id)
    if parent is None or parent.state != OperationState.RUNNING:
        return []
    record = Record(parent)
    course = await course_of(session, parent, record.rows)
    await _follow(session, course, record)
    started = []
    while course.stopped is None and (row := course.next_row()) is not None:
        started += await _start(session, parent, row, record)
    if course.stopped is not None:
        await _stop(session, course, record)
    await record.write(session, course.counts())
    if course.ended:
        await _finish(session, parent, course, record)
    return started


async def course_of(session: AsyncSession, parent: Operation, rows: list[Row]) -> Course:
    """How far a fleet command with these rows is."""
    found = await session.execute(
        select(Server.id, Server.max_parallel).where(Server.id.in_({int(row.server_id) for row in rows}))
    )
    one = parent.kind in ONE_BY_ONE
    default = {str(server_id): 1 if one else max_parallel for server_id, max_parallel in found}
    return Course.of(parent.params, rows, default=default, cancelled=parent.cancel_requested_at is not None)


async def _follow(session: AsyncSession, course: Course, record: Record) -> None:
    """Each row says what its child's row says."""
    open_rows = {UUID(row.operation_id): row for row in course.rows if row.operation_id and not row.ended}
    if not open_rows:
        return
    pruned = case((Operation.kind == OperationKind.PRUNE_SERVER, Operation.result))
    columns = (Operation.id, Operation.state, Operation.error, pruned.label("pruned"))
    for child in await session.execute(select(*columns).where(Operation.id.in_(open_rows))):
        row = open_rows[child.id]
        if child.state == row.state:
            continue
        if row.state == OperationState.QUEUED and child.state != OperationState.CANCELLED:
            record.say(f"{row.name}: started (operation {child.id})")
        row.state, row.error = child.state, child.error
        if child.pruned:
            row.result = {name: child.pruned.get(name, nothing) for name, nothing in PRUNED.items()}
        if row.ended:
            record.say_end(row)


async def _start(session: AsyncSession, parent: Operation, row: Row, record: Record) -> list[UUID]:
    """The row has its child; or its error, where the child is not allowed now."""
    try:
        async with session.begin_nested():
            child = await fleet_children.ask(session, parent, row)
    except AlfaCloudError as error:
        row.end(OperationState.ERROR, error.code, error.detail)
        record.say_end(row)
        return []
    row.operation_id = str(child.id)
    return [child.id]


async def _stop(session: AsyncSession, course: Course, record: Record) -> None:
    """What has not started never will: neither the rows without a child, nor children that are queued."""
    reason = course.stopped or ""
    for row in sorted(course.rows, key=lambda row: row.operation_id or ""):
        if row.untouched:
            row.end(OperationState.CANCELLED, "not_started", reason)
        elif row.operation_id and row.state == OperationState.QUEUED:
            child = await session.get(Operation, UUID(row.operation_id), with_for_update=True, populate_existing=True)
            if child is not None and child.state == OperationState.QUEUED:
                await endings.cancel_queued(session, child, reason)
                row.state, row.error = child.state, child.error
                record.say_end(row)
    record.say_once(reason)


async def _finish(session: AsyncSession, parent: Operation, course: Course, record: Record) -> None:
    state, error = course.outcome()
    if not course.rows:
        record.say("There is nothing to do this for.")
    clients = [int(row.client_id) for row in course.rows if row.client_id]
    pending = await session.scalars(
        select(Client.name).where(Client.id.in_(clients), Client.migration_pending).order_by(Client.name)
    )
    if waiting := list(pending):
        record.facts["migration_pending"] = waiting
        record.say(f"Waiting for a migration: {', '.join(waiting)}.")
    record.say(state if error is None else f"{state}: {error['message']}")
    await record.write(session, course.counts())
    await operations.finish_parent(session, parent, state, error)


async def blocks(session: AsyncSession, parent: Operation) -> dict[str, str]:
    """Why targets of a fleet command would fail at once, by name; the caller takes back what this leaves."""
    found = {}
    for row in Record(parent).rows:
        if row.error is not None:
            found[row.name] = str(row.error["message"])
        elif row.operation_id is None:
            try:
                async with session.begin_nested() as savepoint:
                    await fleet_children.ask(session, parent, row)
                    await savepoint.rollback()
            except AlfaCloudError as error:
                found[row.name] = error.detail
    return found


async def retry(session: AsyncSession, earlier: Operation, caller: Caller) -> Operation:
    """A new fleet command with those targets that did not end well.

    Raises:
        NotRetryableError: all of them did.
    """
    before = Record(earlier).rows
    rows = [row.fresh() for row in before if row.failed]
    if rows and earlier.kind == OperationKind.DEPLOY and rows[0].client_id is not None:
        rows.insert(0, before[0].fresh())
    if not rows:
        raise NotRetryableError("Nothing of it failed.")
    params = {name: value for name, value in earlier.params.items() if name not in ("targets", "limits")}
    return await request(
        session,
        OperationKind(earlier.kind),
        caller,
        rows,
        server_id=earlier.server_id,
        limits=Limits(**earlier.params["limits"]),
        params=params,
        retry_of=earlier.id,
    )
