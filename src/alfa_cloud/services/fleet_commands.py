"""What can be asked of a whole server, or of the whole fleet: the targets of each command, and what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import FieldError
from alfa_cloud.models import Client, Operation, Server
from alfa_cloud.remote.docker import Image
from alfa_cloud.services import fleet, fleet_images, servers
from alfa_cloud.services.client_commands import ALIVE
from alfa_cloud.services.clients import CHANNELS, FILTERS, filtered
from alfa_cloud.services.fleet_course import Limits, Row
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import OperationKind

CLIENT_FILTERS = tuple(name for name in FILTERS if name != "server")
"""Those of the list of clients, but for the one that the address says."""


async def on_clients(
    session: AsyncSession,
    server_id: int,
    kind: OperationKind,
    caller: Caller,
    *,
    limits: Limits,
    filters: Mapping[str, str] | None = None,
    child: Mapping[str, Any] | None = None,
) -> Operation:
    """A command on the clients of a server that are alive.

    Args:
        filters: which of them, as the list of clients has it.
        child: what each client's operation is given.

    Raises:
        ServerNotFoundError: there is none.
        FilterError: a filter's value is of the wrong form.
    """
    await servers.get_server(session, server_id)
    rows = await rows_of_clients(session, server_id, filters or {})
    params = {"child": dict(child or {})}
    return await fleet.request(session, kind, caller, rows, server_id=server_id, limits=limits, params=params)


async def deploy(
    session: AsyncSession,
    server_id: int,
    caller: Caller,
    *,
    limits: Limits,
    images: Sequence[Image],
    repository: str,
    restart_all: bool,
    run_migrate: bool,
) -> Operation:
    """Everything of a server is written anew: what is its own first, then client by client.

    Args:
        images: those on the server, the newest first; a channel means its newest of the whole fleet.

    Raises:
        ServerNotFoundError: there is none.
    """
    server = await servers.get_server(session, server_id)
    rows = [Row(server.name, str(server.id)), *await rows_of_clients(session, server_id, {})]
    params = {
        "child": {"restart": restart_all, "run_migrate": run_migrate},
        "channels": await _channels(session, server_id, images, repository),
    }
    kind = OperationKind.DEPLOY
    return await fleet.request(session, kind, caller, rows, server_id=server_id, limits=limits, params=params)


async def _channels(
    session: AsyncSession, server_id: int, images: Sequence[Image], repository: str
) -> dict[str, dict[str, str]]:
    """What each channel means now; one without an image means nothing, and its clients keep what they run."""
    meant = {}
    for name in CHANNELS:
        with suppress(FieldError):
            found = await fleet_images.find(session, name, server_id, images, repository, field="image")
            meant[name] = {"image_ref": found.reference, "digest": found.digest}
    return meant


async def prune(session: AsyncSession, server_id: int | None, caller: Caller, *, limits: Limits) -> Operation:
    """Images that nobody needs leave one server, or all.

    Raises:
        ServerNotFoundError: there is none.
    """
    if server_id is not None:
        await servers.get_server(session, server_id)
    found = await session.execute(select(Server.id, Server.name).order_by(Server.id))
    rows = [Row(name, str(id_)) for id_, name in found if server_id in (None, id_)]
    return await fleet.request(session, OperationKind.PRUNE, caller, rows, server_id=server_id, limits=limits)


async def rows_of_clients(session: AsyncSession, server_id: int, filters: Mapping[str, str]) -> list[Row]:
    """The clients of a server that are alive, and that the filters choose.

    Raises:
        FilterError: a filter's value is of the wrong form.
    """
    query = filtered(filters).where(Client.server_id == server_id, Client.status.in_(ALIVE))
    found = await session.execute(query.with_only_columns(Client.id, Client.name).order_by(Client.id))
    return [Row(name, str(server_id), str(id_)) for id_, name in found]
