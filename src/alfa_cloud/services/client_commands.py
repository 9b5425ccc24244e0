"""Commands of clients: when each is allowed, and how it becomes an operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientStateError
from alfa_cloud.models import Client, Operation
from alfa_cloud.services import operations
from alfa_cloud.services.clients import CHANGEABLE, get_client
from alfa_cloud.services.operations import Caller, Sealed
from alfa_cloud.specs import ClientStatus, OperationKind

ALIVE: Final = (ClientStatus.ACTIVE, ClientStatus.EXPIRED, ClientStatus.MOVING)

ACTIONS: Final[Mapping[str, OperationKind]] = {
    "reboot": OperationKind.REBOOT_CLIENT,
    "maintain_enable": OperationKind.ENABLE_MAINTENANCE,
    "maintain_disable": OperationKind.DISABLE_MAINTENANCE,
    "demo_enable": OperationKind.ENABLE_DEMO,
    "demo_disable": OperationKind.DISABLE_DEMO,
    "owner_password": OperationKind.SET_OWNER_PASSWORD,
    "expire_date": OperationKind.SET_EXPIRE_DATE,
    "switch": OperationKind.SWITCH_CLIENT,
    "migrate": OperationKind.MIGRATE_CLIENT,
    "send_success": OperationKind.SEND_SUCCESS,
    "send_expire": OperationKind.SEND_EXPIRE,
    "backups": OperationKind.BACK_UP_CLIENT,
    "move_to": OperationKind.MOVE_CLIENT,
    "copy_to": OperationKind.COPY_CLIENT,
}
"""The commands by the last word of their path."""


LETTERS: Final = (OperationKind.SEND_SUCCESS, OperationKind.SEND_EXPIRE)
GONE: Final = (ClientStatus.ARCHIVED, ClientStatus.RESTORING)


def actions(client: Client) -> dict[str, str | None]:
    """The commands of a client, each with the reason why it is not allowed now, or None."""
    return {
        "update": None if client.status in CHANGEABLE else f"The client is {client.status}.",
        "delete": f"The client is {client.status}." if client.status in GONE else None,
        "restore": None if client.status == ClientStatus.ARCHIVED else f"The client is {client.status}.",
        "retry": None if client.status == ClientStatus.FAILED else "Its creation did not fail.",
        **{name: why_not(client, kind) for name, kind in ACTIONS.items()},
    }


def why_not(client: Client, kind: OperationKind) -> str | None:
    """The reason why a command is not allowed now, or None. What is under way is no reason: a command waits."""
    if client.status not in ALIVE:
        return f"The client is {client.status}."
    if kind in LETTERS and client.copy_of:
        return f"The client is a copy of {client.copy_of}; it sends no letters."
    if kind is OperationKind.SEND_EXPIRE and client.expire_date is None:
        return "The client has no last day of use."
    return None


async def request(
    session: AsyncSession,
    client_id: int,
    kind: OperationKind,
    caller: Caller,
    *,
    params: dict[str, Any] | None = None,
    sealed: Sealed | None = None,
    parent_id: UUID | None = None,
) -> Operation:
    """The operation that carries out a command on a client.

    Args:
        parent_id: the fleet command that it is a part of.

    Raises:
        ClientNotFoundError: there is none.
        ClientStateError: it is not allowed now.
    """
    client = await get_client(session, client_id, lock=True)
    reason = why_not(client, kind)
    if reason is not None:
        raise ClientStateError(reason)
    operation, _ = await operations.request(
        session,
        kind,
        caller,
        client_id=client.id,
        server_id=client.server_id,
        params=params,
        sealed=sealed,
        parent_id=parent_id,
    )
    return operation
