"""What is done by the clock: clients and servers probed every minute, old logs dropped.

Each turn is led by one worker, by an advisory lock of the database: arq's own cron would stop with Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import structlog
from sqlalchemy import CursorResult, delete, func, select, text

from alfa_cloud.config import Settings
from alfa_cloud.db import SessionFactory, database_is_away
from alfa_cloud.jobs import backing_up, calendar, counting, probing, sampling, sweeping, tidying
from alfa_cloud.models import OperationEvent
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services import backup_schedule, idempotency, letters, operations

log = structlog.get_logger()

PROBE_LOCK: Final = 0x616C6663
DROP_LOCK: Final = 0x616C6665
DROP_EVERY_S: Final = 3600.0
KEEP_EVENTS_DAYS: Final = 30


async def run_forever(sessions: SessionFactory, pool: SshPool, settings: Settings) -> None:
    """Probe every minute and drop what is old every hour, in whichever process leads."""
    await asyncio.gather(
        _every(settings.probe_interval_s, PROBE_LOCK, sessions, lambda: probing.probe_clients(sessions, pool)),
        _every(
            settings.probe_interval_s,
            sampling.SAMPLE_LOCK,
            sessions,
            lambda: sampling.sample_servers(sessions, pool, settings.sample_keep_days),
        ),
        _every(calendar.EVERY_S, calendar.LOCK, sessions, lambda: turn_calendar(sessions, rules_of(settings))),
        _every(backing_up.EVERY_S, backing_up.LOCK, sessions, lambda: turn_backups(sessions, settings)),
        _every(sweeping.EVERY_S, sweeping.LOCK, sessions, lambda: turn_sweep(sessions)),
        _every(
            settings.users_interval_s,
            counting.USERS_LOCK,
            sessions,
            lambda: counting.count_users(sessions, pool, settings.app),
        ),
        _every(settings.dns_interval_s, counting.NAMES_LOCK, sessions, lambda: counting.check_names(sessions)),
        _every(DROP_EVERY_S, DROP_LOCK, sessions, lambda: drop_old(sessions, settings.log_keep_days)),
        _every(
            DROP_EVERY_S,
            tidying.SWEEP_LOCK,
            sessions,
            lambda: tidying.sweep_servers(sessions, pool, settings.log_keep_days),
        ),
    )


def rules_of(settings: Settings) -> calendar.Rules:
    """What the settings say about last days of use; where no letter can be sent, none is asked for."""
    letters_leave = letters.is_configured(settings.profile.mail)
    return calendar.Rules(
        zone=settings.profile.zone,
        reminder_days=settings.reminder_days if settings.reminders and letters_leave else (),
        from_hour=settings.remind_from_hour,
        expired_letter=settings.expired_letter and letters_leave,
        block=settings.block_expired,
    )


async def turn_calendar(sessions: SessionFactory, rules: calendar.Rules) -> None:
    """What is due by the database's clock has been asked for."""
    async with sessions() as session:
        now = await operations.database_now(session)
    await calendar.turn(sessions, now, rules)


async def turn_backups(sessions: SessionFactory, settings: Settings) -> None:
    """The back-ups, proofs and removals that are due by the database's clock have been asked for."""
    async with sessions() as session:
        now = await operations.database_now(session)
    await backing_up.turn(sessions, now, backup_schedule.Rules(settings.keep, settings.profile.zone))


async def turn_sweep(sessions: SessionFactory) -> None:
    """What is to be brought to its end by the database's clock has been asked for."""
    async with sessions() as session:
        now = await operations.database_now(session)
    await sweeping.sweep(sessions, now)


async def _every(seconds: float, lock: int, sessions: SessionFactory, action: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            async with leadership(sessions, lock) as leads:
                if leads:
                    await action()
        except Exception as error:
            if not database_is_away(error):
                log.exception("periodic_failed")
            else:
                log.warning("periodic_waits_for_database", error=repr(error))


@asynccontextmanager
async def leadership(sessions: SessionFactory, lock: int) -> AsyncIterator[bool]:
    """Whether this process leads, by a lock of its own connection: no transaction is open meanwhile."""
    async with sessions() as session:
        connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        leads = bool(await connection.scalar(select(func.pg_try_advisory_lock(lock))))
        try:
            yield leads
        finally:
            if leads:
                await connection.execute(select(func.pg_advisory_unlock(lock)))


DROP_LINES: Final = text(
    """
    DELETE FROM operation_lines WHERE operation_id IN (
        SELECT o.id FROM operations AS o
         WHERE o.finished_at < clock_timestamp() - make_interval(days => :days)
           AND EXISTS (SELECT FROM operation_lines AS l WHERE l.operation_id = o.id)
         LIMIT 20)
    """
)


async def drop_old(sessions: SessionFactory, log_keep_days: int) -> None:
    """Log lines, events and idempotency keys past their time are gone."""
    while True:
        async with sessions.begin() as session:
            result = await session.execute(DROP_LINES, {"days": log_keep_days})
        if not cast("CursorResult[Any]", result).rowcount:
            break
    async with sessions.begin() as session:
        old = func.clock_timestamp() - func.make_interval(0, 0, 0, KEEP_EVENTS_DAYS)
        await session.execute(delete(OperationEvent).where(OperationEvent.at < old))
    async with sessions.begin() as session:
        await idempotency.purge(session)
