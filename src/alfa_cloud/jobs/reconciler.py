"""Rings again for what waits, and for operations whose worker is gone: the bell may be lost, the work never is.

A loop of its own in every worker process; at each turn one leads, by an advisory lock of the database.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.broker import Broker
from alfa_cloud.db import SessionFactory, database_is_away
from alfa_cloud.models import Worker
from alfa_cloud.services import fleet, operations

log = structlog.get_logger()

LEADER_LOCK: Final = 0x616C6662
FORGET_WORKER_S: Final = 3600


async def reconcile_forever(sessions: SessionFactory, broker: Broker, worker: str, every_s: float) -> None:
    """Reconcile every few seconds, whatever happens to the database or the broker meanwhile."""
    while True:
        try:
            async with asyncio.timeout(60):
                await reconcile(sessions, broker, worker)
        except Exception as error:
            if not database_is_away(error):
                log.exception("reconciler_failed")
            else:
                log.warning("reconciler_waits_for_database", error=repr(error))
        await asyncio.sleep(every_s)


async def reconcile(sessions: SessionFactory, broker: Broker, worker: str) -> None:
    """One turn: say that this worker lives, and ring for what is due if this worker leads now."""
    async with sessions.begin() as session:
        await say_alive(session, worker)
        if not await _leads(session):
            return
        await advance_fleets(sessions)
        due = await operations.due(session)
    for operation_id, attempt in due:
        if not await broker.wake(operation_id, attempt):
            return


async def say_alive(session: AsyncSession, worker: str) -> None:
    """This worker was heard of now."""
    row = insert(Worker).values(name=worker, seen_at=func.clock_timestamp())
    await session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"seen_at": row.excluded.seen_at}))


async def _leads(session: AsyncSession) -> bool:
    """Whether this worker leads, to the end of the transaction; the leader forgets workers that are gone."""
    if not await session.scalar(select(func.pg_try_advisory_xact_lock(LEADER_LOCK))):
        return False
    old = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, FORGET_WORKER_S)
    await session.execute(delete(Worker).where(Worker.seen_at < old))
    return True


async def advance_fleets(sessions: SessionFactory) -> None:
    """Every fleet command is as far as its children: the call at a child's end may be lost, with its worker."""
    async with sessions() as session:
        running = await fleet.unfinished(session)
    for parent_id in running:
        try:
            async with sessions.begin() as session:
                await fleet.advance(session, parent_id)
        except Exception as error:
            if database_is_away(error):
                raise
            log.exception("fleet_not_advanced", operation_id=str(parent_id))
