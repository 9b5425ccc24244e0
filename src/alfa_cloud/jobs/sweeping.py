"""What is brought to its end by the clock: deletions whose server was away, and what moves left behind."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory
from alfa_cloud.models import Client, Operation, Place
from alfa_cloud.services import backups, operations
from alfa_cloud.services.operations import UNFINISHED, Caller
from alfa_cloud.specs import ClientStatus, OperationKind

LOCK: Final = 0x616C666A
EVERY_S: Final = 30.0
ASK_AGAIN: Final = timedelta(minutes=5)
"""After an attempt that failed."""
AT_ONCE: Final = 20


async def sweep(sessions: SessionFactory, now: datetime) -> int:
    """What is due now has been asked for, once; how many operations there were.

    Args:
        now: an aware moment.
    """
    async with sessions.begin() as session:
        return await _finish_deletions(session, now) + await _clear_places(session, now)


async def _finish_deletions(session: AsyncSession, now: datetime) -> int:
    """A client that is partly gone, or whose server was away, is tried again until it is gone."""
    query = (
        select(Client)
        .where(Client.status == ClientStatus.DELETING, ~_cared_for(OperationKind.DELETE_CLIENT, now))
        .order_by(Client.id)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    found = list(await session.scalars(query))
    for client in found:
        operation, _ = await operations.request(
            session,
            OperationKind.DELETE_CLIENT,
            Caller(),
            client_id=client.id,
            server_id=client.server_id,
            params=await _last_params(session, client),
            deadline_s=backups.DEADLINE_S,
        )
        client.operation_id = operation.id
    return len(found)


async def _last_params(session: AsyncSession, client: Client) -> dict[str, object]:
    """What the deletion was asked for with."""
    query = (
        select(Operation.params)
        .where(Operation.client_id == client.id, Operation.kind == OperationKind.DELETE_CLIENT)
        .order_by(Operation.created_at.desc(), Operation.id.desc())
        .limit(1)
    )
    return await session.scalar(query) or {}


async def _clear_places(session: AsyncSession, now: datetime) -> int:
    """What a client left on a former server goes when its time has come, its data before what sends visitors on."""
    query = (
        select(Place)
        .join(Client, Client.id == Place.client_id)
        .where(
            Place.keep_until <= now,
            Place.kept | (Place.forward_until <= now),
            Place.server_id != Client.server_id,
            Client.status.in_((ClientStatus.ACTIVE, ClientStatus.EXPIRED)),
            ~_cared_for(OperationKind.CLEAR_PLACE, now),
        )
        .order_by(Place.client_id, Place.server_id)
        .limit(AT_ONCE)
        .with_for_update(of=Place, skip_locked=True)
    )
    found = list(await session.scalars(query))
    for place in found:
        await operations.request(
            session, OperationKind.CLEAR_PLACE, Caller(), client_id=place.client_id, server_id=place.server_id
        )
    return len(found)


def _cared_for(kind: OperationKind, now: datetime) -> ColumnElement[bool]:
    """Whether an operation of that kind on the client is under way, or ended a moment ago."""
    just_now = Operation.finished_at > now - ASK_AGAIN
    query = select(Operation.id).where(
        Operation.client_id == Client.id, Operation.kind == kind, or_(Operation.state.in_(UNFINISHED), just_now)
    )
    return query.correlate(Client).exists()
