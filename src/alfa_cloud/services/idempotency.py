"""Answers that are kept for a day, so that a repeat with the same Idempotency-Key changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Interval, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.models.idempotency import IdempotencyKey

KEEP: Final = timedelta(hours=24)

_LOCK_SEED: Final = 0x69646B
"""Keeps these advisory locks apart from others that are made of a hash."""


async def find(session: AsyncSession, key: str) -> IdempotencyKey | None:
    """The answer kept under a key; None where there is none, or an expired one."""
    query = select(IdempotencyKey).where(IdempotencyKey.key == key, IdempotencyKey.created_at > _oldest())
    return await session.scalar(query)


async def claim(session: AsyncSession, key: str) -> IdempotencyKey | None:
    """The same, once every other request with this key has ended; none runs beside this transaction."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, _LOCK_SEED))))
    return await find(session, key)


async def keep(session: AsyncSession, **values: Any) -> None:
    """The answer is kept once this commits; an expired one is replaced.

    Args:
        values: the columns of IdempotencyKey but `created_at`.
    """
    values["created_at"] = func.clock_timestamp()
    statement = insert(IdempotencyKey).values(**values)
    await session.execute(statement.on_conflict_do_update(index_elements=[IdempotencyKey.key], set_=values))


async def purge(session: AsyncSession) -> None:
    """Expired answers are gone."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at <= _oldest()))


def _oldest() -> Any:
    return func.clock_timestamp() - literal(KEEP, Interval())
