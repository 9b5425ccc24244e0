"""What the end of an operation means for its subject; written in the transaction of the terminal state."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.models import Client, Server
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState


async def apply(
    session: AsyncSession,
    kind: OperationKind,
    state: OperationState,
    *,
    operation_id: UUID,
    client_id: int | None,
    server_id: int | None,
    requirements: list[dict[str, Any]] | None = None,
) -> None:
    """Bring the subject's row up to what the operation left.

    Args:
        requirements: what a look at the server found after a preparation; None where it could not be asked.
    """
    if kind is OperationKind.CREATE_CLIENT and client_id is not None:
        await (_client_is_alive if state is OperationState.OK else _client_failed)(session, client_id)
    elif kind is OperationKind.DELETE_CLIENT and client_id is not None:
        await _deletion_ended(session, client_id, state)
    elif kind is OperationKind.PREPARE_SERVER and server_id is not None and requirements is not None:
        met = all(row["ok"] for row in requirements)
        values = {"requirements": requirements, "requirements_ok": met}
        await session.execute(update(Server).where(Server.id == server_id).values(**values))


async def _deletion_ended(session: AsyncSession, client_id: int, state: OperationState) -> None:
    """A client that came to life meanwhile is active; one that could not be removed stays `deleting`."""
    client = await session.get(Client, client_id)
    if client is None:
        return
    if state is OperationState.OK:
        await session.delete(client)
    elif client.activated_at is not None:
        client.status = ClientStatus.ACTIVE
    elif state is OperationState.CANCELLED:
        client.status = ClientStatus.FAILED


async def _client_is_alive(session: AsyncSession, client_id: int) -> None:
    await session.execute(
        update(Client)
        .where(Client.id == client_id)
        .values(
            status=ClientStatus.ACTIVE,
            activated_at=func.coalesce(Client.activated_at, func.clock_timestamp()),
            version=func.substring(Client.image_ref, "[^:]*$"),
            available=True,
            available_at=func.clock_timestamp(),
            available_reason="",
        )
    )


async def _client_failed(session: AsyncSession, client_id: int) -> None:
    await session.execute(
        update(Client)
        .where(Client.id == client_id, Client.activated_at.is_(None), Client.status != ClientStatus.DELETING)
        .values(status=ClientStatus.FAILED, available=False, available_reason="the creation failed")
    )


STATUS_MEANWHILE: Final = {
    OperationKind.CREATE_CLIENT: ClientStatus.CREATING,
    OperationKind.DELETE_CLIENT: ClientStatus.DELETING,
}


async def restart(session: AsyncSession, kind: OperationKind, operation_id: UUID, client_id: int | None) -> None:
    """The subject is again what it is while this operation runs."""
    if client_id is None:
        return
    values: dict[str, Any] = {"operation_id": operation_id}
    if kind in STATUS_MEANWHILE:
        values["status"] = STATUS_MEANWHILE[kind]
    await session.execute(update(Client).where(Client.id == client_id).values(**values))
