"""Clients on their way to another server: what is checked before anything is touched, and the way back."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientStateError, NotUndoableError, OperationNotFoundError
from alfa_cloud.models import Client, Operation, Place, Server
from alfa_cloud.services import client_commands, operations, places, servers
from alfa_cloud.services.clients import get_client, server_for
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState

DEADLINE_S: Final = 24 * 3600.0


async def request_move(
    session: AsyncSession, client_id: int, server_id: int, caller: Caller, *, busy_ports: Collection[int]
) -> Operation:
    """The operation that moves a client to another server.

    Args:
        busy_ports: what something on that server listens on.

    Raises:
        ClientNotFoundError, FieldError: there is no such client, or no such server.
        ConflictError: why it cannot go there.
    """
    client = await get_client(session, client_id, lock=True)
    under_way = await _under_way(session, client_id, server_id)
    if under_way is not None:
        return under_way
    _check_alive(client, OperationKind.MOVE_CLIENT)
    if client.server_id == server_id:
        raise ClientStateError(f"{client.name} stands on that server already.")
    target = await server_for(session, server_id)
    await _check_engines(session, client, target)
    await places.reserve(session, client, target, busy_ports)
    operation, _ = await operations.request(
        session,
        OperationKind.MOVE_CLIENT,
        caller,
        client_id=client.id,
        server_id=client.server_id,
        other_server_id=server_id,
        params={"server_id": server_id},
        deadline_s=DEADLINE_S,
    )
    client.status, client.operation_id = ClientStatus.MOVING, operation.id
    await session.flush()
    return operation


def _check_alive(client: Client, kind: OperationKind) -> None:
    reason = client_commands.why_not(client, kind)
    if reason is not None:
        raise ClientStateError(reason)


async def _under_way(session: AsyncSession, client_id: int, server_id: int) -> Operation | None:
    """The client's last unfinished operation, where it is a move to that server."""
    last = await operations.last_unfinished(session, client_id)
    same = last is not None and last.kind == OperationKind.MOVE_CLIENT and last.params["server_id"] == server_id
    return last if same else None


async def _check_engines(session: AsyncSession, client: Client, target: Server) -> None:
    source = await session.get_one(Server, client.server_id)
    servers.check_usable(source)
    if source.database_engine != target.database_engine:
        raise ClientStateError(
            f"{client.name} has its data in {source.database_engine}, and {target.name} has {target.database_engine}; "
            "moving between database systems is not possible."
        )


async def moved(session: AsyncSession, operation_id: UUID, now: datetime) -> tuple[Client, Place]:
    """The client that an operation moved, and the place that it can go back to.

    Raises:
        OperationNotFoundError: there is no such operation.
        NotUndoableError: why it cannot be undone.
    """
    operation = await session.get(Operation, operation_id)
    if operation is None:
        raise OperationNotFoundError(f"There is no operation {operation_id}.")
    if operation.kind not in (OperationKind.MOVE_CLIENT, OperationKind.UNDO_MOVE) or operation.client_id is None:
        raise NotUndoableError("Only a move can be undone.")
    if not (operation.result or {}).get("moved"):
        raise NotUndoableError("It did not move the client.")
    client = await session.get(Client, operation.client_id, with_for_update=True)
    if client is None:
        raise NotUndoableError("Its client is gone.")
    target = operation.params["server_id"]
    source = operation.other_server_id if target == operation.server_id else operation.server_id
    place = await session.get(Place, (client.id, source))
    if client.server_id != target or place is None or not places.is_way_back(place, now):
        raise NotUndoableError("What the client left on its former server is not kept any more, or it has moved since.")
    return client, place


async def request_undo(session: AsyncSession, operation_id: UUID, caller: Caller) -> Operation:
    """The operation that brings a moved client back, as it was when it left.

    Raises:
        OperationNotFoundError, NotUndoableError: there is none, or it cannot be undone.
        ConflictError: the client's state does not allow it.
    """
    under_way = await _undo_under_way(session, operation_id)
    if under_way is not None:
        return under_way
    client, place = await moved(session, operation_id, await operations.database_now(session))
    _check_alive(client, OperationKind.UNDO_MOVE)
    servers.check_usable(await session.get_one(Server, place.server_id))
    operation, _ = await operations.request(
        session,
        OperationKind.UNDO_MOVE,
        caller,
        client_id=client.id,
        server_id=client.server_id,
        other_server_id=place.server_id,
        params={"server_id": place.server_id, "undoes": str(operation_id)},
        deadline_s=DEADLINE_S,
    )
    client.status, client.operation_id = ClientStatus.MOVING, operation.id
    await session.flush()
    return operation


async def _undo_under_way(session: AsyncSession, operation_id: UUID) -> Operation | None:
    """The last unfinished operation of the client that an operation moved, where it takes that back."""
    move = await session.get(Operation, operation_id)
    if move is None or move.client_id is None:
        return None
    await session.get(Client, move.client_id, with_for_update=True)
    last = await operations.last_unfinished(session, move.client_id)
    return last if last is not None and last.params.get("undoes") == str(operation_id) else None


async def arrived(session: AsyncSession, client_id: int, target_id: int, *, moved: bool) -> None:
    """A move has ended; where the client did not get there, what is left of it there may go."""
    client = await session.get(Client, client_id, with_for_update=True)
    if client is None:
        return
    if client.status == ClientStatus.MOVING and not await _moves_on(session, client_id):
        client.status = ClientStatus.EXPIRED if client.blocked else ClientStatus.ACTIVE
    if not moved:
        await places.release(session, client_id, target_id)


async def _moves_on(session: AsyncSession, client_id: int) -> bool:
    """Whether another move of the client waits."""
    waiting = select(Operation.id).where(
        Operation.client_id == client_id,
        Operation.kind.in_((OperationKind.MOVE_CLIENT, OperationKind.UNDO_MOVE)),
        Operation.state == OperationState.QUEUED,
    )
    return await session.scalar(waiting.limit(1)) is not None
