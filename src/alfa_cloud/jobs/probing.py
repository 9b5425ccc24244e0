"""Whether clients answer, as a look from outside finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select, text

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import AlfaCloudError
from alfa_cloud.models import Client, Server
from alfa_cloud.remote.nginx import HEALTH_PATH
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.probe import ProbeResult, probe_http
from alfa_cloud.services import operations
from alfa_cloud.specs import ClientStatus

PROBES_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Target:
    """A client, and where it is to answer."""

    client_id: int
    host: str
    ssh_port: int
    http_port: int
    domain: str


async def probe_clients(sessions: SessionFactory, pool: SshPool, client_id: int | None = None) -> None:
    """Every client that is alive was asked for its health through its server's nginx, and its row says the answer.

    What an operation said of a client meanwhile is newer, and stays.

    Args:
        client_id: only this one.
    """
    began, targets = await _targets(sessions, client_id)
    slots = asyncio.Semaphore(PROBES_AT_ONCE)

    async def probe(target: Target) -> tuple[int, ProbeResult]:
        async with slots:
            try:
                address = await pool.check_address(target.host, target.ssh_port)
            except AlfaCloudError as error:
                return target.client_id, ProbeResult(0, error.detail)
            return target.client_id, await probe_http(address, target.http_port, target.domain, HEALTH_PATH)

    found = await asyncio.gather(*(probe(target) for target in targets))
    await _store(sessions, found, began)


async def _targets(sessions: SessionFactory, client_id: int | None) -> tuple[datetime, list[Target]]:
    query = (
        select(Client, Server)
        .join(Server, Server.id == Client.server_id)
        .where(Client.status.in_((ClientStatus.ACTIVE, ClientStatus.EXPIRED, ClientStatus.MOVING)))
    )
    if client_id is not None:
        query = query.where(Client.id == client_id)
    async with sessions() as session:
        began = await operations.database_now(session)
        rows = await session.execute(query)
        return began, [
            Target(client.id, server.host, server.port, server.layout_spec.http_port, client.domain)
            for client, server in rows
        ]


STORE: Final = text(
    """
    UPDATE clients SET available = found.available, available_reason = found.reason, available_at = clock_timestamp()
      FROM unnest(CAST(:ids AS integer[]), CAST(:available AS boolean[]), CAST(:reasons AS text[]))
           AS found (id, available, reason)
     WHERE clients.id = found.id AND clients.status IN ('active', 'expired', 'moving')
       AND (clients.available_at IS NULL OR clients.available_at <= :began)
    """
)


async def _store(sessions: SessionFactory, found: Sequence[tuple[int, ProbeResult]], began: datetime) -> None:
    values = {
        "ids": [client_id for client_id, _ in found],
        "available": [result.status == 200 for _, result in found],
        "reasons": [_reason(result) for _, result in found],
        "began": began,
    }
    async with sessions.begin() as session:
        await session.execute(STORE, values)


def _reason(result: ProbeResult) -> str:
    if result.status == 200:
        return ""
    return f"HTTP {result.status}" if result.status else result.reason[:200]
