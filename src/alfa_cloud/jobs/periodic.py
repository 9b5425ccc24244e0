"""What is done by the clock: clients and servers probed every minute, old logs dropped.

Each turn is led by one worker, by an advisory lock of the database, whatever the broker does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import delete, func, select, text, update

from alfa_cloud.config import Settings
from alfa_cloud.db import SessionFactory, database_is_away
from alfa_cloud.errors import AlfaCloudError
from alfa_cloud.models import Client, OperationEvent, OperationLine, Server
from alfa_cloud.remote.nginx import HEALTH_PATH
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.probe import ProbeResult, probe_http
from alfa_cloud.services import idempotency
from alfa_cloud.specs import ClientStatus

log = structlog.get_logger()

PERIODIC_LOCK: Final = 0x616C6663
PROBES_AT_ONCE: Final = 50
KEEP_EVENTS_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Target:
    """A client, and where it is to answer."""

    client_id: int
    host: str
    ssh_port: int
    http_port: int
    domain: str


async def run_forever(sessions: SessionFactory, pool: SshPool, settings: Settings) -> None:
    """Do all of it, again and again."""
    while True:
        await asyncio.sleep(settings.probe_interval_s)
        try:
            await _turn(sessions, pool, settings)
        except Exception as error:
            if not database_is_away(error):
                log.exception("periodic_failed")
            else:
                log.warning("periodic_waits_for_database", error=repr(error))


async def _turn(sessions: SessionFactory, pool: SshPool, settings: Settings) -> None:
    async with sessions() as leader:
        if not await leader.scalar(select(func.pg_try_advisory_xact_lock(PERIODIC_LOCK))):
            return
        await probe_clients(sessions, pool)
        await drop_old(sessions, settings.log_keep_days)


async def probe_clients(sessions: SessionFactory, pool: SshPool) -> None:
    """Every client that is alive was asked for its health through its server's nginx, and its row says the answer."""
    slots = asyncio.Semaphore(PROBES_AT_ONCE)

    async def probe(target: Target) -> tuple[int, ProbeResult]:
        async with slots:
            try:
                address = await pool.check_address(target.host, target.ssh_port)
            except AlfaCloudError as error:
                return target.client_id, ProbeResult(0, error.detail)
            return target.client_id, await probe_http(address, target.http_port, target.domain, HEALTH_PATH)

    found = await asyncio.gather(*(probe(target) for target in await _targets(sessions)))
    await _store(sessions, found)


async def _targets(sessions: SessionFactory) -> list[Target]:
    async with sessions() as session:
        rows = await session.execute(
            select(Client, Server)
            .join(Server, Server.id == Client.server_id)
            .where(Client.status.in_((ClientStatus.ACTIVE, ClientStatus.EXPIRED)))
        )
        return [
            Target(client.id, server.host, server.port, server.layout_spec.http_port, client.domain)
            for client, server in rows
        ]


async def _store(sessions: SessionFactory, found: Sequence[tuple[int, ProbeResult]]) -> None:
    async with sessions.begin() as session:
        for client_id, result in found:
            available = result.status == 200
            reason = "" if available else (f"HTTP {result.status}" if result.status else result.reason)
            await session.execute(
                update(Client)
                .where(Client.id == client_id, Client.status.in_((ClientStatus.ACTIVE, ClientStatus.EXPIRED)))
                .values(
                    available=available,
                    available_at=func.clock_timestamp(),
                    available_reason=reason[:200],
                    updated_at=Client.updated_at,
                )
            )


async def drop_old(sessions: SessionFactory, log_keep_days: int) -> None:
    """Log lines, events and idempotency keys past their time are gone."""
    async with sessions.begin() as session:
        now = func.clock_timestamp()
        old_lines = now - func.make_interval(0, 0, 0, log_keep_days)
        ended = text("SELECT id FROM operations WHERE finished_at < clock_timestamp() - make_interval(days => :days)")
        ids = list(await session.scalars(ended, {"days": log_keep_days}))
        if ids:
            await session.execute(
                delete(OperationLine).where(OperationLine.operation_id.in_(ids), OperationLine.at < old_lines)
            )
        await session.execute(
            delete(OperationEvent).where(OperationEvent.at < now - func.make_interval(0, 0, 0, KEEP_EVENTS_DAYS))
        )
        await idempotency.purge(session)
