"""What clients have on servers that are not their own, and the moment when that changes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.models import Client, Operation, Place, Server
from alfa_cloud.profile import Keeping
from alfa_cloud.services import clients, operations
from alfa_cloud.specs import OperationKind, OperationState

OF_A_SERVER: Final = (OperationKind.CLEAR_PLACE, OperationKind.PROVE_BACKUP, OperationKind.REMOVE_BACKUP)
"""What is done where something of a client lies, wherever the client is by then."""


async def reserve(session: AsyncSession, client: Client, server: Server, busy: Collection[int]) -> Place:
    """The client's place on another server, whose row is held: with ports that nobody else there has.

    What an earlier move has left there loses its meaning: it will be written over.
    """
    place = await session.get(Place, (client.id, server.id), with_for_update=True)
    if place is None:
        port, spare_port = await clients.free_ports(session, server, busy, 2)
        place = Place(client_id=client.id, server_id=server.id, port=port, spare_port=spare_port)
        session.add(place)
    place.slot, place.image_ref = "a", client.image_ref
    place.kept, place.keep_until, place.forward_until = False, None, None
    await session.flush()
    return place


async def release(session: AsyncSession, client_id: int, server_id: int) -> None:
    """What is left of a client on a server that it did not get to may go now."""
    now = await operations.database_now(session)
    await session.execute(
        update(Place)
        .where(Place.client_id == client_id, Place.server_id == server_id, Place.keep_until.is_(None))
        .values(keep_until=now, forward_until=now)
    )


async def change_over(session: AsyncSession, client_id: int, server_id: int, keeping: Keeping) -> None:
    """The client's row says the other server; what it leaves behind is kept. Nothing where it says so already."""
    client = await session.get_one(Client, client_id, with_for_update=True)
    if client.server_id == server_id:
        return
    there = await session.get_one(Place, (client_id, server_id), with_for_update=True)
    former = client.server_id
    now = await operations.database_now(session)
    here = await session.get(Place, (client_id, former)) or Place(client_id=client_id, server_id=former)
    here.slot, here.port, here.spare_port = client.slot, client.port or 0, client.spare_port or 0
    here.image_ref, here.kept, here.created_at = client.image_ref, True, now
    here.keep_until = now + timedelta(days=keeping.source_days)
    here.forward_until = now + timedelta(days=keeping.forward_days)
    client.server_id, client.slot = server_id, there.slot
    client.port, client.spare_port = there.port, there.spare_port
    if there.image_ref != client.image_ref:
        client.image_ref, client.version = there.image_ref, there.image_ref.rpartition(":")[2]
    session.add(here)
    await session.delete(there)
    await session.execute(
        update(Operation)
        .where(
            Operation.client_id == client_id,
            Operation.server_id == former,
            Operation.state == OperationState.QUEUED,
            Operation.kind.not_in(OF_A_SERVER),
        )
        .values(server_id=server_id)
    )
    await session.flush()


async def of_client(session: AsyncSession, client_id: int) -> list[Place]:
    """Everything that a client has elsewhere."""
    return list(await session.scalars(select(Place).where(Place.client_id == client_id).order_by(Place.server_id)))


async def data_is_gone(session: AsyncSession, client_id: int, server_id: int) -> None:
    """Only the virtual host that sends visitors on is left of a client on a server."""
    here = (Place.client_id == client_id, Place.server_id == server_id, Place.keep_until.is_not(None))
    await session.execute(update(Place).where(*here).values(kept=False))


async def forget(session: AsyncSession, client_id: int, server_id: int) -> None:
    """Nothing is left of a client on a server, unless it is on its way there again."""
    here = (Place.client_id == client_id, Place.server_id == server_id, Place.keep_until.is_not(None))
    await session.execute(delete(Place).where(*here))


def is_way_back(place: Place | None, now: datetime) -> bool:
    """Whether a place still has what a client left there, and will for now."""
    return place is not None and place.kept and place.keep_until is not None and place.keep_until > now
