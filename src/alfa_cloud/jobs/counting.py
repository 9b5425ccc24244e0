"""What is looked up now and then: how many users each client has, and whether its name leads to its server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy import select, text

from alfa_cloud.db import SessionFactory, database_is_away
from alfa_cloud.errors import RemoteError
from alfa_cloud.models import Client, Server
from alfa_cloud.remote import users
from alfa_cloud.remote.look import host_to_look_at
from alfa_cloud.remote.names import Resolver, leads_to
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services.client_commands import ALIVE
from alfa_cloud.services.client_specs import client_spec
from alfa_cloud.specs import AppProfile, ClientSpec

log = structlog.get_logger()

USERS_LOCK: Final = 0x616C6668
NAMES_LOCK: Final = 0x616C6669
SERVERS_AT_ONCE: Final = 20

STORE_USERS: Final = text(
    """
    UPDATE clients SET users_count = found.users, users_counted_at = clock_timestamp()
      FROM unnest(CAST(:ids AS integer[]), CAST(:users AS integer[])) AS found (id, users)
     WHERE clients.id = found.id AND clients.server_id = :server_id
    """
)
STORE_NAMES: Final = text(
    """
    UPDATE clients SET dns_ok = found.ok
      FROM unnest(CAST(:ids AS integer[]), CAST(:ok AS boolean[])) AS found (id, ok)
     WHERE clients.id = found.id AND clients.dns_ok IS DISTINCT FROM found.ok
    """
)


async def count_users(sessions: SessionFactory, pool: SshPool, app: AppProfile) -> None:
    """Every client that could be asked has its number of users; one that could not keeps the last, with its age."""
    slots = asyncio.Semaphore(SERVERS_AT_ONCE)

    async def count(server: Server, specs: Sequence[ClientSpec]) -> None:
        async with slots:
            try:
                await _count_on(sessions, pool, server, specs)
            except RemoteError as error:
                log.info("users_not_counted", server_id=server.id, reason=error.detail)
            except Exception as error:
                if database_is_away(error):
                    raise
                log.exception("users_not_counted", server_id=server.id)

    found: dict[int, tuple[Server, list[ClientSpec]]] = {}
    for client, server in await _clients(sessions):
        if not server.host_key_changed:
            found.setdefault(server.id, (server, []))[1].append(client_spec(client, server, app))
    await asyncio.gather(*(count(server, specs) for server, specs in found.values()))


async def _count_on(sessions: SessionFactory, pool: SshPool, server: Server, specs: Sequence[ClientSpec]) -> None:
    host = host_to_look_at(pool, server.address, server.layout_spec)
    result = await host.run(users.count(specs), check=False)
    counted = users.parse(result.text)
    async with sessions.begin() as session:
        values = {"ids": list(counted), "users": list(counted.values()), "server_id": server.id}
        await session.execute(STORE_USERS, values)


async def check_names(sessions: SessionFactory) -> None:
    """Every client's name was looked up; where nobody could say, what was known stays."""
    rows = await _clients(sessions)
    async with Resolver() as resolver:

        async def look_up(client: Client, server: Server) -> tuple[int, bool] | None:
            there, here = await asyncio.gather(resolver.addresses(server.host), resolver.addresses(client.domain))
            return (client.id, leads_to(here, there)) if there and here is not None else None

        found = await asyncio.gather(*(look_up(client, server) for client, server in rows))
    known = [each for each in found if each is not None]
    async with sessions.begin() as session:
        await session.execute(STORE_NAMES, {"ids": [key for key, _ in known], "ok": [ok for _, ok in known]})


async def _clients(sessions: SessionFactory) -> list[tuple[Client, Server]]:
    query = select(Client, Server).join(Server, Server.id == Client.server_id).where(Client.status.in_(ALIVE))
    async with sessions() as session:
        return [(client, server) for client, server in await session.execute(query.order_by(Client.id))]
