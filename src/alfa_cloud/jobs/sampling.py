"""Every minute: what each server is busy with, and whether it can be reached."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy import select

from alfa_cloud.db import SessionFactory, database_is_away
from alfa_cloud.models import Server
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services import samples

log = structlog.get_logger()

SAMPLE_LOCK: Final = 0x616C6666
SERVERS_AT_ONCE: Final = 20


async def sample_servers(sessions: SessionFactory, pool: SshPool, keep_days: int) -> None:
    """Every server that may be spoken to was asked once; one that fails holds up no other."""
    slots = asyncio.Semaphore(SERVERS_AT_ONCE)

    async def sample(server: Server) -> None:
        async with slots:
            try:
                await samples.sample(sessions, pool, server, keep_days)
            except Exception as error:
                if database_is_away(error):
                    raise
                log.exception("sampling_failed", server_id=server.id)

    async with sessions() as session:
        rows = list(await session.scalars(select(Server).where(~Server.host_key_changed)))
    await asyncio.gather(*(sample(row) for row in rows))
