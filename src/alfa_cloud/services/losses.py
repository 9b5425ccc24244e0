"""What a client has written since a move, that going back would lose."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import FieldError, RemoteError
from alfa_cloud.models import Place, Server
from alfa_cloud.remote import dump
from alfa_cloud.remote.host import Host
from alfa_cloud.services import moves, operations
from alfa_cloud.services.client_specs import client_spec
from alfa_cloud.services.plans.moves import at
from alfa_cloud.services.plans.plan import Site, Tools
from alfa_cloud.specs import ClientSpec

LOOK_S: Final = 10.0
MAX_NAMED: Final = 10


async def check(sessions: SessionFactory, tools: Tools, operation_id: UUID) -> None:
    """Nothing, where the client has written nothing since it moved.

    Raises:
        FieldError: it has, or that cannot be told; the message says what would be lost.
        OperationNotFoundError, NotUndoableError: there is nothing to undo.
    """
    async with sessions() as session:
        here, there, since = await _ends(session, tools, operation_id)
        await session.rollback()
    try:
        async with asyncio.timeout(LOOK_S):
            now, then = await asyncio.gather(_tables(*here), _tables(*there))
    except (RemoteError, TimeoutError) as error:
        raise _unconfirmed(f"Everything written since {since} would be lost.") from error
    changed = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    if changed:
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        named = ", ".join(changed[:MAX_NAMED])
        raise _unconfirmed(f"What was written since {since} would be lost, in the tables {named}{more}.")


async def _tables(host: Host, spec: ClientSpec) -> dict[str, tuple[int, str]]:
    return dump.parse_checksums((await host.run(dump.checksums(spec))).text)


async def _ends(
    session: AsyncSession, tools: Tools, operation_id: UUID
) -> tuple[tuple[Host, ClientSpec], tuple[Host, ClientSpec], str]:
    client, place = await moves.moved(session, operation_id, await operations.database_now(session))
    server = await session.get_one(Server, client.server_id)
    former = await session.get_one(Server, place.server_id)
    spec = client_spec(client, server, tools.profile.app)
    back = at(client_spec(client, former, tools.profile.app), place)
    since = _since(place)
    return (tools.open_host(Site.of(server)), spec), (tools.open_host(Site.of(former)), back), since


def _since(place: Place) -> str:
    return place.created_at.isoformat(timespec="minutes")


def _unconfirmed(detail: str) -> FieldError:
    return FieldError(
        "confirm_loss", f"{detail} Say confirm_loss=true where that is wanted.", code="confirm_loss_needed"
    )
