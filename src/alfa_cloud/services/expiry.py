"""The last day of use: what it means on a day, and every change of it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientStateError
from alfa_cloud.models import Client, ExpireDate, Operation
from alfa_cloud.services import client_commands, operations
from alfa_cloud.services.clients import get_client
from alfa_cloud.services.listing import ListQuery, Page, fetch_page
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import OperationKind

SORTS: Final = {"id": ExpireDate.id}


def today(now: datetime, zone: ZoneInfo) -> date:
    """The day of an aware moment in a zone."""
    return now.astimezone(zone).date()


def is_over(expire_date: date | None, day: date) -> bool:
    """Whether the term has ended on this day: the last day still counts; None has no end."""
    return expire_date is not None and day > expire_date


async def change(
    session: AsyncSession, client_id: int, expire_date: date | None, comment: str, caller: Caller
) -> tuple[Client, Operation | None]:
    """The client with its new last day, and the operation that brings it to the server; None where it is the same.

    Raises:
        ClientNotFoundError: there is none.
        ClientStateError: its status does not allow it.
    """
    client = await get_client(session, client_id, lock=True)
    reason = client_commands.why_not(client, OperationKind.SET_EXPIRE_DATE)
    if reason is not None:
        raise ClientStateError(reason)
    if client.expire_date == expire_date:
        return client, None
    remember(session, client.id, client.expire_date, expire_date, comment=comment, actor=caller.actor)
    client.expire_date = expire_date
    operation = await request(session, client, caller)
    client.operation_id = operation.id
    await session.flush()
    await session.refresh(client)
    return client, operation


def remember(
    session: AsyncSession,
    client_id: int,
    old_date: date | None,
    new_date: date | None,
    *,
    comment: str = "",
    actor: str | None = None,
) -> None:
    """A change stands in the history."""
    row = ExpireDate(client_id=client_id, old_date=old_date, new_date=new_date, comment=comment, actor=actor)
    session.add(row)


async def request(session: AsyncSession, client: Client, caller: Caller) -> Operation:
    """The operation that brings a client's last day, and what it means now, to its server; its row is locked."""
    params: dict[str, Any] = {"expire_date": client.expire_date.isoformat() if client.expire_date else None}
    operation, _ = await operations.request(
        session,
        OperationKind.SET_EXPIRE_DATE,
        caller,
        client_id=client.id,
        server_id=client.server_id,
        params=params,
    )
    return operation


async def list_changes(session: AsyncSession, client_id: int, asked: ListQuery) -> Page[ExpireDate]:
    """A page of the changes of a client's last day, the newest first.

    Raises:
        ClientNotFoundError: there is no such client.
    """
    await get_client(session, client_id)
    query = select(ExpireDate).where(ExpireDate.client_id == client_id)
    return await fetch_page(session, query, asked, sorts=SORTS, default=(("id", True),), tie=ExpireDate.id)
