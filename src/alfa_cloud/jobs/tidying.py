"""Every hour: what detached commands of operations long past left on the servers is gone."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy import select

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import AlfaCloudError
from alfa_cloud.models import Operation, Server
from alfa_cloud.remote import detached
from alfa_cloud.remote.look import host_to_look_at
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services.operations import UNFINISHED

log = structlog.get_logger()

SWEEP_LOCK: Final = 0x616C666C
SERVERS_AT_ONCE: Final = 10


async def sweep_servers(sessions: SessionFactory, pool: SshPool, keep_days: int) -> None:
    """The folders of operations that ended more than these days ago are gone, on every server that can be reached."""
    slots = asyncio.Semaphore(SERVERS_AT_ONCE)
    async with sessions() as session:
        servers = list(await session.scalars(select(Server).where(~Server.host_key_changed)))
        unfinished = await session.scalars(select(Operation.id).where(Operation.state.in_(UNFINISHED)))
        spared = [str(operation_id) for operation_id in unfinished]

    async def sweep(server: Server) -> None:
        layout = server.layout_spec
        async with slots:
            try:
                host = host_to_look_at(pool, server.address, layout)
                await host.run(detached.sweep(layout, keep_days, spared))
            except AlfaCloudError as error:
                log.warning("server_not_swept", server_id=server.id, error=error.detail)

    await asyncio.gather(*(sweep(server) for server in servers))
