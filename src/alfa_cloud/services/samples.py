"""What servers are busy with: taken now, kept each minute, shown as plots."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import HostKeyChangedError, RemoteError
from alfa_cloud.models import Server, ServerSample
from alfa_cloud.remote import load
from alfa_cloud.remote.load import Load
from alfa_cloud.remote.look import host_to_look_at
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services import servers
from alfa_cloud.specs import Address, Layout

LIVE_S: Final = 1.8
"""A page that shows one server is answered within 2 s."""
SAMPLE_S: Final = 15.0
MISSED_S: Final = 150
"""A server whose last sample is older was missed at least once."""
POINTS: Final = 1500
"""Of a plot, at most."""
STEP_S: Final = 60


@dataclass(frozen=True, slots=True)
class Seen:
    """A server's last known load.

    Args:
        stale: whether it is older than what was asked for.
    """

    at: datetime
    values: Mapping[str, Any]
    stale: bool

    @property
    def age_s(self) -> int:
        """How old it is."""
        return max(0, int((datetime.now(UTC) - self.at).total_seconds()))


def last_known(server: Server) -> Seen | None:
    """What the last look found; stale where a minute's was missed since."""
    if server.load is None or server.load_at is None:
        return None
    return Seen(server.load_at, server.load, datetime.now(UTC) - server.load_at > timedelta(seconds=MISSED_S))


def live(server: Server, *, taken: bool) -> Seen | None:
    """What a server's row says, which was just taken, or is stale."""
    last = last_known(server)
    return None if last is None else replace(last, stale=not taken)


async def take_now(sessions: SessionFactory, pool: SshPool, address: Address, layout: Layout) -> bool:
    """Whether the server said its load in time; its row has it then."""
    try:
        async with servers.shutting_off(sessions, address), asyncio.timeout(LIVE_S):
            taken = await load.take(host_to_look_at(pool, address, layout))
    except (RemoteError, TimeoutError):
        return False
    async with sessions.begin() as session:
        return await _remember(session, address.server_id, taken)


async def sample(sessions: SessionFactory, pool: SshPool, server: Server, keep_days: int) -> None:
    """The server's load is among its samples, the old ones are gone, and its row says whether it was reached."""
    address = server.address
    try:
        async with servers.shutting_off(sessions, address), asyncio.timeout(SAMPLE_S):
            taken = await load.take(host_to_look_at(pool, address, server.layout_spec))
    except HostKeyChangedError:
        return
    except (RemoteError, TimeoutError):
        await _store_unreached(sessions, server.id)
        return
    async with sessions.begin() as session:
        if await _remember(session, server.id, taken):
            session.add(ServerSample(server_id=server.id, values=asdict(taken)))
        old = func.clock_timestamp() - func.make_interval(0, 0, 0, keep_days)
        await session.execute(delete(ServerSample).where(ServerSample.server_id == server.id, ServerSample.at < old))


async def _store_unreached(sessions: SessionFactory, server_id: int) -> None:
    which = update(Server).where(Server.id == server_id)
    async with sessions.begin() as session:
        await session.execute(which.values(reachable=False, updated_at=Server.updated_at))


async def _remember(session: AsyncSession, server_id: int, taken: Load) -> bool:
    """Whether the server is still there."""
    now = func.clock_timestamp()
    values = {"load": asdict(taken), "load_at": now, "reachable": True, "seen_at": now}
    found = await session.scalar(
        update(Server)
        .where(Server.id == server_id)
        .values(**values, updated_at=Server.updated_at)  # nobody changed the server
        .returning(Server.id)
    )
    return found is not None


PLOT: Final = text(
    """
    SELECT at, jsonb_object_agg(name, round(value, 2)) AS values
      FROM (SELECT date_bin(make_interval(secs => :step_s), s.at, TIMESTAMPTZ '2000-01-01') AS at,
                   v.key AS name, avg(CAST(v.value AS numeric)) AS value
              FROM server_samples AS s, jsonb_each_text(s.values) AS v
             WHERE s.server_id = :server_id AND s.at > clock_timestamp() - make_interval(hours => :hours)
             GROUP BY 1, 2) AS averages
     GROUP BY at ORDER BY at
    """
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A server's samples, the oldest first, each the average of `step_s` seconds."""

    step_s: int
    points: list[tuple[datetime, dict[str, Any]]]


async def plot(session: AsyncSession, server_id: int, hours: int) -> Plot:
    """A server's samples of the last hours.

    Raises:
        ServerNotFoundError: there is none.
    """
    await servers.get_server(session, server_id)
    step_s = STEP_S * -(-hours * 3600 // (STEP_S * POINTS))
    rows = await session.execute(PLOT, {"server_id": server_id, "hours": hours, "step_s": step_s})
    return Plot(step_s, [(row.at, row.values) for row in rows])
