"""What a monitoring system is told of the database."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import QueuePool

from alfa_cloud.db import SessionFactory
from alfa_cloud.models import Backup, Client, Operation, Server, Worker
from alfa_cloud.specs import ClientStatus, OperationState


@dataclass(frozen=True, slots=True)
class Figures:
    """The service at one moment.

    Args:
        operations: how many there are of each (kind, state).
        queue_age_s: how long the oldest queued operation has waited; 0 where none waits.
        clients: how many of the clients that are to answer do (`available`), do not (`unavailable`), or were not asked
            yet (`unknown`).
        reachable: whether each server was reached at the last look; None before the first.
        workers: how many worker processes are alive.
        damaged_backups: of how many back-ups the last look found something wrong.
    """

    operations: dict[tuple[str, str], int]
    queue_age_s: float
    clients: dict[str, int]
    reachable: dict[str, bool | None]
    workers: int
    damaged_backups: int


async def take(session: AsyncSession, *, worker_seen_s: float) -> Figures:
    """The service now.

    Args:
        worker_seen_s: a worker that was heard of within this is alive.
    """
    kinds = await session.execute(
        select(Operation.kind, Operation.state, func.count()).group_by(Operation.kind, Operation.state)
    )
    servers = await session.execute(select(Server.name, Server.reachable).order_by(Server.name))
    since = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, worker_seen_s)
    return Figures(
        operations={(row.kind, row.state): row[2] for row in kinds},
        queue_age_s=await _queue_age_s(session),
        clients=await _clients(session),
        reachable={row.name: row.reachable for row in servers},
        damaged_backups=await _damaged_backups(session),
        workers=await session.scalar(select(func.count()).select_from(Worker).where(Worker.seen_at > since)) or 0,
    )


async def _damaged_backups(session: AsyncSession) -> int:
    return await session.scalar(select(func.count()).select_from(Backup).where(Backup.proof_error != "")) or 0


def connections_in_use(sessions: SessionFactory) -> int:
    """How many connections to the database this process uses just now."""
    pool = sessions.kw["bind"].pool
    return pool.checkedout() if isinstance(pool, QueuePool) else 0


async def _queue_age_s(session: AsyncSession) -> float:
    age = func.extract("epoch", func.clock_timestamp() - func.min(Operation.created_at))
    return float(await session.scalar(select(age).where(Operation.state == OperationState.QUEUED)) or 0)


async def _clients(session: AsyncSession) -> dict[str, int]:
    alive = Client.status.in_((ClientStatus.ACTIVE, ClientStatus.EXPIRED))
    asked = Client.available_at.is_not(None)
    rows = await session.execute(
        select(
            func.count().filter(Client.available).label("available"),
            func.count().filter(~Client.available, asked).label("unavailable"),
            func.count().filter(~Client.available, ~asked).label("unknown"),
        ).where(alive)
    )
    return dict(rows.one()._mapping)
