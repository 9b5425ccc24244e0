"""Operations in people's hands: cancelled, and tried again."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import NotCancellableError, NotRetryableError, OperationNotFoundError
from alfa_cloud.models import Client, Operation
from alfa_cloud.services import client_commands, endings, fleet, operations, outcomes, places
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import FLEET_KINDS, ClientStatus, OperationKind, OperationState

CANCELLABLE: Final = frozenset(
    {
        OperationKind.CREATE_CLIENT,
        OperationKind.PREPARE_SERVER,
        OperationKind.SWITCH_CLIENT,
        OperationKind.BUILD_IMAGE,
        OperationKind.SEND_SUCCESS,
        OperationKind.SEND_EXPIRE,
    }
)
"""Kinds that can be stopped while they run; any operation can while it is queued."""

CREATIONS: Final = frozenset({OperationKind.CREATE_CLIENT, OperationKind.COPY_CLIENT})

WITH_SECRETS: Final = frozenset({OperationKind.SET_OWNER_PASSWORD})
"""Kinds that cannot be run again: what they were given is erased at their end."""

MOVES: Final = frozenset({OperationKind.MOVE_CLIENT, OperationKind.UNDO_MOVE})
"""Kinds that only go on, past their point of no return: before it they were taken back, with the place they had."""

CHECKED_FIRST: Final = frozenset({OperationKind.RESTORE_CLIENT, OperationKind.RESTORE_BACKUP})
"""Kinds that must be asked for anew: what was checked and reserved for them is not theirs any more."""


async def cancel(session: AsyncSession, operation_id: UUID) -> Operation:
    """Ask an operation to stop; one that is queued and never started ends at once.

    Of a fleet command nothing more starts, its queued children end at once, and it ends when those that run have ended.

    Raises:
        OperationNotFoundError: there is none.
        NotCancellableError: it has ended, or its kind cannot be stopped half-way.
    """
    parent_id = await fleet.parent_of(session, operation_id)
    if parent_id is not None:
        await fleet.lock(session, parent_id)
    operation = await session.get(Operation, operation_id, with_for_update=True, populate_existing=True)
    if operation is None:
        raise OperationNotFoundError(f"There is no operation {operation_id}.")
    reason = why_not_cancellable(operation)
    if reason is not None:
        raise NotCancellableError(reason)
    operation.cancel_requested_at = operation.cancel_requested_at or await operations.database_now(session)
    await operations.hurry(session, operation)
    if operation.state == OperationState.QUEUED:
        await endings.cancel_queued(session, operation, "Cancelled before it started.")
    await session.flush()
    if parent_id is not None:
        await fleet.advance(session, parent_id)
        await session.refresh(operation)
    return operation


def why_not_cancellable(operation: Operation) -> str | None:
    """The reason why it cannot be stopped, or None."""
    if OperationState(operation.state).terminal:
        return f"The operation has ended ({operation.state})."
    if operation.state == OperationState.RUNNING and operation.kind not in CANCELLABLE | FLEET_KINDS:
        return f"{operation.kind} cannot be stopped half-way; wait for its end."
    return None


def why_not_retryable(operation: Operation) -> str | None:
    """The reason why it cannot be run again, or None."""
    if operation.state not in (OperationState.ERROR, OperationState.CANCELLED):
        return f"Only a failed or cancelled operation can be retried; this one is {operation.state}."
    if operation.kind in WITH_SECRETS:
        return "What it was given is erased; send the command again."
    if operation.kind in CHECKED_FIRST or (operation.kind in MOVES and not (operation.result or {}).get("moved")):
        return "What it needs is looked at anew; send the command again."
    if operation.kind == OperationKind.DELETE_CLIENT and operation.params.get("keep_archive") is False:
        return "Without an archive it is asked for by the client's name; send the command again."
    return None


async def retry(session: AsyncSession, operation_id: UUID, caller: Caller) -> Operation:
    """A new operation of the same kind on the same subject, with the subject's present attributes.

    Of a fleet command only those targets that did not end well are done again.

    Raises:
        OperationNotFoundError: there is none.
        NotRetryableError: it did not fail, was retried already, or its subject has changed since.
    """
    earlier = await session.get(Operation, operation_id)
    if earlier is None:
        raise OperationNotFoundError(f"There is no operation {operation_id}.")
    server_id = earlier.server_id
    if earlier.client_id is not None:
        server_id = await _server_of_retry(session, earlier)
    else:
        await operations.lock_subject(session, earlier.server_id or 0)
    reason = why_not_retryable(earlier)
    if reason is not None:
        raise NotRetryableError(reason)
    successor = await session.scalar(select(Operation.id).where(Operation.retry_of == operation_id).limit(1))
    if successor is not None:
        raise NotRetryableError(f"It was retried already, by operation {successor}; retry that one.")
    if earlier.kind in FLEET_KINDS:
        return await fleet.retry(session, earlier, caller)
    operation, _ = await operations.request(
        session,
        OperationKind(earlier.kind),
        caller,
        client_id=earlier.client_id,
        server_id=server_id,
        other_server_id=earlier.other_server_id,
        params=earlier.params,
        exclusive=earlier.exclusive,
        locks_client=earlier.locks_client,
        retry_of=earlier.id,
        deadline_s=earlier.deadline_s,
    )
    await outcomes.restart(session, OperationKind(operation.kind), operation.id, operation.client_id)
    return operation


async def _server_of_retry(session: AsyncSession, earlier: Operation) -> int | None:
    """Where the operation works now, where the client still is what it was about; the client's row is locked.

    Raises:
        NotRetryableError: it is gone, has come to life, moved on, or is being deleted.
    """
    client = await session.get(Client, earlier.client_id, with_for_update=True)
    if client is None:
        raise NotRetryableError("Its client is gone.")
    if earlier.kind in CREATIONS and client.activated_at is not None:
        raise NotRetryableError(f"{client.name} has come to life since.")
    going = client.status == ClientStatus.DELETING and earlier.kind != OperationKind.DELETE_CLIENT
    if (going or client.status in client_commands.GONE) and earlier.kind not in places.OF_A_SERVER:
        raise NotRetryableError(f"{client.name} is {client.status}.")
    if earlier.kind not in MOVES:
        return earlier.server_id if earlier.kind in places.OF_A_SERVER else client.server_id
    if client.server_id != earlier.params["server_id"]:
        raise NotRetryableError(f"{client.name} has moved on since.")
    return earlier.server_id
