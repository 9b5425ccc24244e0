"""What the end of an operation means for its subject; written in the transaction of the terminal state."""

from __future__ import annotations

from typing import Any
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
) -> None:
    """Bring the subject's row up to what the operation left."""
    if kind is OperationKind.CREATE_CLIENT and client_id is not None:
        await (_client_is_alive if state is OperationState.OK else _client_failed)(session, client_id)
    elif kind is OperationKind.DELETE_CLIENT and client_id is not None and state is OperationState.OK:
        client = await session.get(Client, client_id)
        if client is not None:
            await session.delete(client)
    elif kind is OperationKind.PREPARE_SERVER and server_id is not None and state is OperationState.OK:
        await session.execute(update(Server).where(Server.id == server_id).values(requirements_ok=True))


async def _client_is_alive(session: AsyncSession, client_id: int) -> None:
    await session.execute(
        update(Client)
        .where(Client.id == client_id)
        .values(
            status=ClientStatus.ACTIVE,
            activated_at=func.coalesce(Client.activated_at, func.clock_timestamp()),
            version=func.split_part(Client.image_ref, ":", 2),
            available=True,
            available_at=func.clock_timestamp(),
            available_reason="",
        )
    )


async def _client_failed(session: AsyncSession, client_id: int) -> None:
    await session.execute(
        update(Client)
        .where(Client.id == client_id, Client.activated_at.is_(None))
        .values(status=ClientStatus.FAILED, available=False, available_reason="the creation failed")
    )


async def restart(session: AsyncSession, kind: OperationKind, operation_id: UUID, client_id: int | None) -> None:
    """The subject is again what it is while this operation runs."""
    if client_id is None:
        return
    values: dict[str, Any] = {"operation_id": operation_id}
    if kind is OperationKind.CREATE_CLIENT:
        values["status"] = ClientStatus.CREATING
    await session.execute(update(Client).where(Client.id == client_id).values(**values))
