"""The life of an operation: asked for, claimed, kept alive, finished. Only this module writes `state`.

Every time in here is the database's clock; every write of a worker names its fence, and a write that matches no row
means that another worker has taken over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import Table, case, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid6 import uuid7

from alfa_cloud.errors import LeaseLostError
from alfa_cloud.models import Operation
from alfa_cloud.specs import OperationKind, OperationState, Secret, fingerprint
from alfa_cloud.vault import Vault

TABLE: Final = cast("Table", Operation.__table__)
"""For what is written many times in an operation: SQLAlchemy's ORM takes several times as long for an UPDATE."""
UNFINISHED: Final = (OperationState.QUEUED, OperationState.RUNNING)

SERVER_LOCK: Final = 0x616C6661
"""Namespace of the advisory locks that serialize claims on one server."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: told, not proven."""

    actor: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """Parameters of an operation that must not be seen: they lie encrypted in its row until its end."""

    values: Mapping[str, Secret]
    vault: Vault

    def digests(self) -> dict[str, str]:
        """The same for equal parameters."""
        return {name: self.vault.digest(value.reveal().encode()).hex() for name, value in self.values.items()}

    def seal(self, operation_id: UUID) -> bytes:
        """The column."""
        plain = {name: value.reveal() for name, value in self.values.items()}
        return self.vault.seal(Secret(json.dumps(plain)), _place(operation_id))


def open_secrets(sealed: bytes | None, operation_id: UUID, vault: Vault) -> dict[str, Secret]:
    """An operation's sealed parameters."""
    if sealed is None:
        return {}
    plain = json.loads(vault.open(sealed, _place(operation_id)).reveal())
    return {name: Secret(value) for name, value in plain.items()}


def _place(operation_id: UUID) -> str:
    return f"operations.secrets.{operation_id}"


@dataclass(frozen=True, slots=True)
class Claim:
    """An operation that this worker may work on, until its lease ends or another fence is drawn."""

    operation_id: UUID
    kind: OperationKind
    client_id: int | None
    server_id: int | None
    parent_id: UUID | None
    params: dict[str, Any]
    secrets: bytes | None
    attempt: int
    fence: int
    last_seq: int
    log_bytes: int
    checkpoints: dict[str, int]
    warnings: list[str]
    result: dict[str, Any]
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
    other_server_id: int | None = None,
    exclusive: bool = False,
    locks_client: bool = True,
    retry_of: UUID | None = None,
    parent_id: UUID | None = None,
    sealed: Sealed | None = None,
    deadline_s: float = 4 * 3600,
) -> tuple[Operation, bool]:
    """A queued operation, and True; or the equal one that is its subject's last unfinished, and False.

    The caller of a client's command holds the client's row lock, so that equal requests meet one after the other.

    Args:
        other_server_id: a second server that it works on.
        locks_client: whether it takes its turn among its client's operations.
        parent_id: the fleet command that it is a part of; such a one is never another's equal.
        sealed: parameters that must not be seen.
    """
    equal_key = fingerprint([kind, client_id, server_id, params or {}, *([sealed.digests()] if sealed else [])])
    last = await last_unfinished(session, client_id, server_id, locks_client=locks_client)
    if last is not None and last.equal_key == equal_key and retry_of is None and parent_id is None:
        return last, False
    operation_id = uuid7()
    operation = Operation(
        id=operation_id,
        secrets=sealed.seal(operation_id) if sealed else None,
        locks_client=locks_client,
        parent_id=parent_id,
        kind=kind,
        client_id=client_id,
        server_id=server_id,
        other_server_id=other_server_id,
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


async def last_unfinished(
    session: AsyncSession, client_id: int | None, server_id: int | None = None, *, locks_client: bool = True
) -> Operation | None:
    """What a client's, or else a server's, next command comes behind.

    Args:
        locks_client: whether it took its turn among its client's operations.
    """
    query = select(Operation).where(Operation.state.in_(UNFINISHED), Operation.locks_client.is_(locks_client))
    if client_id is not None:
        query = query.where(Operation.client_id == client_id)
    else:
        await lock_subject(session, server_id or 0)
        query = query.where(
            Operation.client_id.is_(None), Operation.server_id == server_id, Operation.parent_id.is_(None)
        )
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
           AND (NOT q.locks_client OR NOT EXISTS (
                SELECT 1 FROM operations AS e
                 WHERE e.client_id = q.client_id AND e.locks_client AND e.state IN ('queued', 'running')
                   AND (e.created_at, e.id) < (q.created_at, q.id)))
           AND NOT EXISTS (
                SELECT 1 FROM operations AS e
                 WHERE e.state IN ('queued', 'running') AND e.id <> q.id
                   AND (e.server_id IN (q.server_id, q.other_server_id)
                        OR e.other_server_id IN (q.server_id, q.other_server_id))
                   AND ((e.state = 'running' AND e.lease_until IS NOT NULL AND (e.exclusive OR q.exclusive))
                        OR (e.state = 'queued' AND e.exclusive AND (e.created_at, e.id) < (q.created_at, q.id))))
           AND (q.state = 'running' OR NOT EXISTS (
                SELECT 1 FROM servers AS s
                 WHERE s.id IN (q.server_id, q.other_server_id)
                   AND s.max_parallel <= (
                       SELECT count(*) FROM operations AS e
                        WHERE e.state = 'running' AND e.lease_until IS NOT NULL
                          AND s.id IN (e.server_id, e.other_server_id))))
           FOR UPDATE SKIP LOCKED)
    RETURNING o.id, o.kind, o.client_id, o.server_id, o.params, o.secrets, o.attempt, o.fence, o.last_seq,
              o.log_bytes, o.checkpoints, o.warnings, o.result, o.error, o.cancel_requested_at, o.request_id,
              o.parent_id,
              extract(epoch FROM o.started_at - clock_timestamp()) + o.deadline_s AS remaining_s
    """
)


async def claim(session: AsyncSession, operation_id: UUID, worker: str, lease_s: float) -> Claim | None:
    """Take an operation that may run now, or None: it is finished, held, or others go first."""
    servers = select(Operation.server_id, Operation.other_server_id).where(Operation.id == operation_id)
    found = (await session.execute(servers)).one_or_none()
    for server_id in sorted({one for one in found or () if one is not None}):
        await lock_subject(session, server_id)
    row = (await session.execute(CLAIM, {"id": operation_id, "worker": worker, "lease_s": lease_s})).one_or_none()
    if row is None:
        return None
    return Claim(
        operation_id=row.id,
        kind=OperationKind(row.kind),
        client_id=row.client_id,
        server_id=row.server_id,
        parent_id=row.parent_id,
        params=row.params,
        secrets=row.secrets,
        attempt=row.attempt,
        fence=row.fence,
        last_seq=row.last_seq,
        log_bytes=row.log_bytes,
        checkpoints=row.checkpoints,
        warnings=row.warnings,
        result=row.result or {},
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
    row = TABLE.c
    return (row.id == claim.operation_id, row.fence == claim.fence, row.state == OperationState.RUNNING)


async def give_back(session: AsyncSession, claim: Claim, after_s: float = -1) -> None:
    """End the lease, so that another worker goes on where this one was: after some seconds, or at once, as always where
    somebody asks to cancel.
    """
    seconds = case((TABLE.c.cancel_requested_at.is_(None), after_s), else_=-1.0)
    await session.execute(
        update(TABLE)
        .where(*_held(claim))
        .values(lease_until=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds), worker=None)
    )


async def hurry(session: AsyncSession, operation: Operation) -> None:
    """An operation that is to go on later, and that nobody holds, goes on now; the caller holds its row locked."""
    if operation.state == OperationState.RUNNING and operation.lease_until is not None and operation.worker is None:
        operation.lease_until = await database_now(session)


async def write(session: AsyncSession, claim: Claim, **values: Any) -> bool:
    """Change columns of an operation that this worker holds; whether somebody asks to cancel.

    Raises:
        LeaseLostError: another worker has it.
    """
    change = update(TABLE).where(*_held(claim)).values(**values).returning(TABLE.c.cancel_requested_at)
    row = (await session.execute(change)).one_or_none()
    if row is None:
        raise LeaseLostError
    return row.cancel_requested_at is not None


async def finish(
    session: AsyncSession,
    claim: Claim,
    state: OperationState,
    *,
    error: dict[str, Any] | None = None,
) -> None:
    """Write the terminal state; nothing follows it, and its secrets are gone.

    Raises:
        LeaseLostError: another worker has it.
    """
    values: dict[str, Any] = {
        "state": state,
        "error": error,
        "secrets": None,
        "lease_until": None,
        "finished_at": func.clock_timestamp(),
    }
    if state is OperationState.OK:
        values["progress"] = 1.0
    await write(session, claim, **values)


async def start_parent(session: AsyncSession, operation: Operation) -> None:
    """A fleet command runs from now on: it has no lease, so no worker ever claims it."""
    operation.state = OperationState.RUNNING
    operation.started_at = await database_now(session)
    await session.flush()


async def finish_parent(
    session: AsyncSession, operation: Operation, state: OperationState, error: dict[str, Any] | None
) -> None:
    """Write the terminal state of a fleet command, whose row the caller holds locked."""
    operation.state = state
    operation.error = error
    operation.finished_at = await database_now(session)
    await session.flush()


async def cancel_queued(session: AsyncSession, operation: Operation, message: str) -> None:
    """End an operation that never started, and whose row the caller holds locked."""
    operation.state = OperationState.CANCELLED
    operation.finished_at = await database_now(session)
    operation.error = {"code": "cancelled", "message": message, "step": None}
    operation.secrets = None
    await session.flush()


DUE: Final = text(
    """
    WITH unfinished AS (
        SELECT o.id, o.attempt, o.state, o.server_id, o.exclusive, o.lease_until, o.created_at,
               row_number() OVER (PARTITION BY CASE WHEN o.client_id IS NOT NULL AND o.locks_client
                                                    THEN 'c' || o.client_id ELSE o.id::text END
                                  ORDER BY o.created_at, o.id) AS place
          FROM operations AS o
         WHERE o.state = 'queued' OR (o.state = 'running' AND o.lease_until IS NOT NULL)),
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


async def database_now(session: AsyncSession) -> datetime:
    """The database's clock."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now
