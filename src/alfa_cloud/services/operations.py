"""The life of an operation: asked for, claimed, kept alive, finished. Only this module writes `state`.

Every time in here is the database's clock; every write of a worker names its fence, and a write that matches no row
means that another worker has taken over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid6 import uuid7

from alfa_cloud.errors import (
    LeaseLostError,
    NotCancellableError,
    NotRetryableError,
    OperationNotFoundError,
)
from alfa_cloud.models import Client, Operation
from alfa_cloud.services import outcomes
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState, fingerprint

UNFINISHED: Final = (OperationState.QUEUED, OperationState.RUNNING)

CANCELLABLE: Final = frozenset({OperationKind.CREATE_CLIENT, OperationKind.PREPARE_SERVER})
"""Kinds that can be stopped while they run; any operation can while it is queued."""

SERVER_LOCK: Final = 0x616C6661
"""Namespace of the advisory locks that serialize claims on one server."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: told, not proven."""

    actor: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """An operation that this worker may work on, until its lease ends or another fence is drawn."""

    operation_id: UUID
    kind: OperationKind
    client_id: int | None
    server_id: int | None
    params: dict[str, Any]
    attempt: int
    fence: int
    last_seq: int
    log_bytes: int
    checkpoints: dict[str, int]
    warnings: list[str]
    error: dict[str, Any] | None
    """Set where an earlier attempt failed and was taking its steps back."""
    remaining_s: float
    """Seconds to the operation's deadline; negative past it."""
    cancel_requested: bool
    request_id: str | None


async def request(
    session: AsyncSession,
    kind: OperationKind,
    caller: Caller,
    *,
    client_id: int | None = None,
    server_id: int | None = None,
    params: dict[str, Any] | None = None,
    exclusive: bool = False,
    retry_of: UUID | None = None,
    deadline_s: float = 4 * 3600,
) -> tuple[Operation, bool]:
    """A queued operation, and True; or the equal one that is its subject's last unfinished, and False.

    The caller of a client's command holds the client's row lock, so that equal requests meet one after the other.
    """
    equal_key = fingerprint([kind, client_id, server_id, params or {}])
    last = await _last_unfinished(session, client_id, server_id)
    if last is not None and last.equal_key == equal_key and retry_of is None:
        return last, False
    operation = Operation(
        id=uuid7(),
        kind=kind,
        client_id=client_id,
        server_id=server_id,
        params=params or {},
        exclusive=exclusive,
        equal_key=equal_key,
        retry_of=retry_of,
        actor=caller.actor,
        request_id=caller.request_id,
        deadline_s=deadline_s,
        state=OperationState.QUEUED,
    )
    session.add(operation)
    await session.flush()
    return operation, True


async def _last_unfinished(session: AsyncSession, client_id: int | None, server_id: int | None) -> Operation | None:
    query = select(Operation).where(Operation.state.in_(UNFINISHED))
    if client_id is not None:
        query = query.where(Operation.client_id == client_id)
    else:
        await lock_subject(session, server_id or 0)
        query = query.where(Operation.client_id.is_(None), Operation.server_id == server_id)
    return await session.scalar(query.order_by(Operation.created_at.desc(), Operation.id.desc()).limit(1))


async def lock_subject(session: AsyncSession, server_id: int) -> None:
    """Hold the lock that serializes claims and requests on one server, to the end of the transaction."""
    await session.execute(select(func.pg_advisory_xact_lock(SERVER_LOCK, server_id)))


CLAIM: Final = text(
    """
    UPDATE operations AS o
       SET state = 'running', attempt = o.attempt + 1, fence = o.fence + 1, worker = :worker,
           lease_until = clock_timestamp() + make_interval(secs => :lease_s),
           started_at = coalesce(o.started_at, clock_timestamp())
     WHERE o.id = (
        SELECT q.id FROM operations AS q
         WHERE q.id = :id
           AND (q.state = 'queued' OR (q.state = 'running' AND q.lease_until < clock_timestamp()))
           AND NOT EXISTS (
                SELECT 1 FROM operations AS e
                 WHERE e.client_id = q.client_id AND e.state IN ('queued', 'running')
                   AND (e.created_at, e.id) < (q.created_at, q.id))
           AND NOT EXISTS (
                SELECT 1 FROM operations AS e
                 WHERE e.server_id = q.server_id AND e.id <> q.id
                   AND ((e.state = 'running' AND (e.exclusive OR q.exclusive))
                        OR (e.state = 'queued' AND e.exclusive AND (e.created_at, e.id) < (q.created_at, q.id))))
           AND (q.server_id IS NULL OR q.state = 'running' OR (
                SELECT count(*) FROM operations AS e WHERE e.server_id = q.server_id AND e.state = 'running'
                ) < coalesce((SELECT max_parallel FROM servers WHERE servers.id = q.server_id), 4))
           FOR UPDATE SKIP LOCKED)
    RETURNING o.id, o.kind, o.client_id, o.server_id, o.params, o.attempt, o.fence, o.last_seq, o.log_bytes,
              o.checkpoints, o.warnings, o.error, o.cancel_requested_at, o.request_id,
              extract(epoch FROM o.started_at - clock_timestamp()) + o.deadline_s AS remaining_s
    """
)


async def claim(session: AsyncSession, operation_id: UUID, worker: str, lease_s: float) -> Claim | None:
    """Take an operation that may run now, or None: it is finished, held, or others go first."""
    server_id = await session.scalar(select(Operation.server_id).where(Operation.id == operation_id))
    if server_id is not None:
        await lock_subject(session, server_id)
    row = (await session.execute(CLAIM, {"id": operation_id, "worker": worker, "lease_s": lease_s})).one_or_none()
    if row is None:
        return None
    return Claim(
        operation_id=row.id,
        kind=OperationKind(row.kind),
        client_id=row.client_id,
        server_id=row.server_id,
        params=row.params,
        attempt=row.attempt,
        fence=row.fence,
        last_seq=row.last_seq,
        log_bytes=row.log_bytes,
        checkpoints=row.checkpoints,
        warnings=row.warnings,
        error=row.error,
        remaining_s=float(row.remaining_s),
        cancel_requested=row.cancel_requested_at is not None,
        request_id=row.request_id,
    )


async def renew(session: AsyncSession, claim: Claim, lease_s: float) -> bool:
    """Prolong the lease; whether somebody asks to cancel.

    Raises:
        LeaseLostError: another worker has it.
    """
    until = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, lease_s)
    return await write(session, claim, lease_until=until)


def _held(claim: Claim) -> tuple[Any, ...]:
    return (
        Operation.id == claim.operation_id,
        Operation.fence == claim.fence,
        Operation.state == OperationState.RUNNING,
    )


async def give_back(session: AsyncSession, claim: Claim, after_s: float = -1) -> None:
    """End the lease, at once or after some seconds, so that another worker goes on where this one was."""
    await session.execute(
        update(Operation)
        .where(*_held(claim))
        .values(lease_until=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, after_s), worker=None)
    )


async def write(session: AsyncSession, claim: Claim, **values: Any) -> bool:
    """Change columns of an operation that this worker holds; whether somebody asks to cancel.

    Raises:
        LeaseLostError: another worker has it.
    """
    row = (
        await session.execute(
            update(Operation).where(*_held(claim)).values(**values).returning(Operation.cancel_requested_at)
        )
    ).one_or_none()
    if row is None:
        raise LeaseLostError
    return row.cancel_requested_at is not None


async def finish(
    session: AsyncSession,
    claim: Claim,
    state: OperationState,
    *,
    error: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
) -> None:
    """Write the terminal state; nothing follows it.

    Raises:
        LeaseLostError: another worker has it.
    """
    values: dict[str, Any] = {
        "state": state,
        "error": error,
        "result": result,
        "lease_until": None,
        "finished_at": func.clock_timestamp(),
    }
    if state is OperationState.OK:
        values["progress"] = 1.0
    await write(session, claim, **values)


DUE: Final = text(
    """
    WITH unfinished AS (
        SELECT o.id, o.attempt, o.state, o.server_id, o.exclusive, o.lease_until, o.created_at,
               row_number() OVER (PARTITION BY coalesce('c' || o.client_id, o.id::text)
                                  ORDER BY o.created_at, o.id) AS place
          FROM operations AS o WHERE o.state IN ('queued', 'running')),
    taken AS (
        SELECT server_id, count(*) AS running FROM unfinished WHERE state = 'running' GROUP BY server_id),
    waiting AS (
        SELECT u.*, row_number() OVER (PARTITION BY coalesce(u.server_id::text, u.id::text)
                                       ORDER BY u.created_at, u.id) AS turn
          FROM unfinished AS u WHERE u.place = 1 AND u.state = 'queued')
    SELECT w.id, w.attempt, w.created_at FROM waiting AS w
      LEFT JOIN taken AS t ON t.server_id = w.server_id
      LEFT JOIN servers AS s ON s.id = w.server_id
     WHERE w.turn <= coalesce(s.max_parallel, 4) - coalesce(t.running, 0)
    UNION ALL
    SELECT u.id, u.attempt, u.created_at FROM unfinished AS u
     WHERE u.state = 'running' AND u.lease_until < clock_timestamp()
     ORDER BY created_at
     LIMIT :limit
    """
)


async def due(session: AsyncSession, *, limit: int = 500) -> list[tuple[UUID, int]]:
    """Operations that could start or be taken over now, as (id, attempts so far), the oldest first."""
    rows = await session.execute(DUE, {"limit": limit})
    return [(row.id, row.attempt) for row in rows]


async def cancel(session: AsyncSession, operation_id: UUID) -> Operation:
    """Ask an operation to stop; one that is queued and never started ends at once.

    Raises:
        OperationNotFoundError: there is none.
        NotCancellableError: it has ended, or its kind cannot be stopped half-way.
    """
    operation = await session.get(Operation, operation_id, with_for_update=True)
    if operation is None:
        raise OperationNotFoundError(f"There is no operation {operation_id}.")
    reason = why_not_cancellable(operation)
    if reason is not None:
        raise NotCancellableError(reason)
    now = await database_now(session)
    operation.cancel_requested_at = operation.cancel_requested_at or now
    if operation.state == OperationState.QUEUED:
        operation.state = OperationState.CANCELLED
        operation.finished_at = now
        operation.error = {"code": "cancelled", "message": "Cancelled before it started.", "step": None}
        await outcomes.apply(
            session,
            OperationKind(operation.kind),
            OperationState.CANCELLED,
            operation_id=operation.id,
            client_id=operation.client_id,
            server_id=operation.server_id,
        )
    await session.flush()
    return operation


def why_not_cancellable(operation: Operation) -> str | None:
    """The reason why it cannot be stopped, or None."""
    if OperationState(operation.state).terminal:
        return f"The operation has ended ({operation.state})."
    if operation.state == OperationState.RUNNING and operation.kind not in CANCELLABLE:
        return f"{operation.kind} cannot be stopped half-way; wait for its end."
    return None


def why_not_retryable(operation: Operation) -> str | None:
    """The reason why it cannot be run again, or None."""
    if operation.state not in (OperationState.ERROR, OperationState.CANCELLED):
        return f"Only a failed or cancelled operation can be retried; this one is {operation.state}."
    return None


async def retry(session: AsyncSession, operation_id: UUID, caller: Caller) -> Operation:
    """A new operation of the same kind on the same subject, with the subject's present attributes.

    Raises:
        OperationNotFoundError: there is none.
        NotRetryableError: it did not fail, was retried already, or its subject has changed since.
    """
    earlier = await session.get(Operation, operation_id)
    if earlier is None:
        raise OperationNotFoundError(f"There is no operation {operation_id}.")
    if earlier.client_id is not None:
        await _check_client_of_retry(session, earlier)
    else:
        await lock_subject(session, earlier.server_id or 0)
    reason = why_not_retryable(earlier)
    if reason is not None:
        raise NotRetryableError(reason)
    successor = await session.scalar(select(Operation.id).where(Operation.retry_of == operation_id).limit(1))
    if successor is not None:
        raise NotRetryableError(f"It was retried already, by operation {successor}; retry that one.")
    operation, _ = await request(
        session,
        OperationKind(earlier.kind),
        caller,
        client_id=earlier.client_id,
        server_id=earlier.server_id,
        params=earlier.params,
        exclusive=earlier.exclusive,
        retry_of=earlier.id,
        deadline_s=earlier.deadline_s,
    )
    await outcomes.restart(session, OperationKind(operation.kind), operation.id, operation.client_id)
    return operation


async def _check_client_of_retry(session: AsyncSession, earlier: Operation) -> None:
    """Nothing, where the client still is what the operation was about; its row is locked.

    Raises:
        NotRetryableError: it is gone, has come to life, or is being deleted.
    """
    client = await session.get(Client, earlier.client_id, with_for_update=True)
    if client is None:
        raise NotRetryableError("Its client is gone.")
    alive = client.activated_at is not None
    if alive and earlier.kind in (OperationKind.CREATE_CLIENT, OperationKind.DELETE_CLIENT):
        raise NotRetryableError(f"{client.name} has come to life since.")
    if earlier.kind == OperationKind.CREATE_CLIENT and client.status == ClientStatus.DELETING:
        raise NotRetryableError(f"{client.name} is being deleted.")


async def database_now(session: AsyncSession) -> datetime:
    """The database's clock."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now
