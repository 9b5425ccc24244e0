"""What servers are busy with: kept each minute, averaged for plots, gone after its time."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncssh
import pytest
from sqlalchemy import func, select

from alfa_cloud.db import SessionFactory
from alfa_cloud.jobs import sampling
from alfa_cloud.models import Server, ServerSample
from alfa_cloud.remote.load import Load
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.sandbox.practice import PracticeServer
from alfa_cloud.services import samples
from alfa_cloud.specs import Secret
from tests.factories import HOST_KEY, make_server
from tests.system import free_port

LOAD = Load(1, 2, 3, 2, 10, 1000, 500, 0, 0, 10_000, 5_000, 60, None)


@pytest.fixture
async def pool(practice_key: asyncssh.SSHKey) -> AsyncIterator[SshPool]:
    """Connections with the key that opens the practice server."""
    key = Secret(practice_key.export_private_key("openssh").decode())
    made = SshPool(key, allowed_networks=[ipaddress.ip_network("127.0.0.0/8")], connect_timeout_s=2)
    yield made
    await made.close()


async def register(sessions: SessionFactory, practice: PracticeServer, **values: Any) -> int:
    """The id of the practice server's row."""
    place = {"host": practice.host, "port": practice.port, "username": practice.username}
    async with sessions.begin() as session:
        row = await make_server(
            session, **{**place, "host_key": practice.host_key, "layout": asdict(practice.layout), **values}
        )
        return row.id


async def row_of(sessions: SessionFactory, server_id: int) -> Server:
    async with sessions() as session:
        return await session.get_one(Server, server_id)


async def count(sessions: SessionFactory, server_id: int) -> int:
    async with sessions() as session:
        query = select(func.count()).select_from(ServerSample).where(ServerSample.server_id == server_id)
        return await session.scalar(query) or 0


async def test_every_server_is_sampled_and_none_holds_up_another(
    sessions: SessionFactory, practice: PracticeServer, pool: SshPool
) -> None:
    good = await register(sessions, practice)
    async with sessions.begin() as session:
        away = (await make_server(session, host="127.0.0.1", port=free_port(), reachable=True)).id
        shut = (await make_server(session, host="127.0.0.2", host_key_changed=True)).id
        off = (await make_server(session, host="no-such-host.invalid", active=False)).id
        strange = (await make_server(session, host="127.0.0.1", port=practice.port + 1)).id
    before = await row_of(sessions, good)
    await sampling.sample_servers(sessions, pool, 14)
    row = await row_of(sessions, good)
    assert (row.reachable, row.load is not None, row.updated_at) == (True, True, before.updated_at)
    assert row.load is not None
    assert row.load["cpu_count"] >= 1
    assert [await count(sessions, one) for one in (good, away, shut, off, strange)] == [1, 0, 0, 0, 0]
    assert [(await row_of(sessions, one)).reachable for one in (away, shut, off)] == [False, None, False]


async def test_a_server_with_another_key_is_shut_off(
    sessions: SessionFactory, practice: PracticeServer, pool: SshPool
) -> None:
    server_id = await register(sessions, practice, host_key=HOST_KEY)
    practice.forget_commands()
    await sampling.sample_servers(sessions, pool, 14)
    row = await row_of(sessions, server_id)
    assert (row.host_key_changed, row.reachable, await count(sessions, server_id)) == (True, False, 0)
    assert practice.commands() == []


async def test_old_samples_are_gone_and_those_of_others_stay(
    sessions: SessionFactory, practice: PracticeServer, pool: SshPool
) -> None:
    server_id = await register(sessions, practice)
    now = datetime.now(UTC)
    async with sessions.begin() as session:
        other = (await make_server(session)).id
        for days in (13, 15, 100):
            at = now - timedelta(days=days)
            session.add(ServerSample(server_id=server_id, at=at, values=asdict(LOAD)))
            session.add(ServerSample(server_id=other, at=at, values=asdict(LOAD)))
    await samples.sample(sessions, pool, await row_of(sessions, server_id), 14)
    assert (await count(sessions, server_id), await count(sessions, other)) == (2, 3)


async def test_a_load_of_now_is_taken_within_its_time_or_not_at_all(
    sessions: SessionFactory, practice: PracticeServer, pool: SshPool
) -> None:
    server_id = await register(sessions, practice)
    row = await row_of(sessions, server_id)
    for _ in range(20):  # a slow machine may need another try
        if await samples.take_now(sessions, pool, row.address, row.layout_spec):
            break
    after = await row_of(sessions, server_id)
    assert after.load is not None
    practice.fault("alfa-load", "hang")
    try:
        assert not await samples.take_now(sessions, pool, row.address, row.layout_spec)
    finally:
        practice.clear_faults()
    assert after.load_at is not None
    last = samples.Seen(after.load_at, after.load, stale=True)
    assert samples.live(after, taken=False) == last
    assert samples.live(after, taken=True) == samples.last_known(after) == replace(last, stale=False)


async def test_a_plot_has_a_point_for_each_minute_or_averages_of_more(sessions: SessionFactory) -> None:
    newest = datetime.now(UTC).replace(second=30, microsecond=0) - timedelta(minutes=1)
    async with sessions.begin() as session:
        server_id = (await make_server(session)).id
        for minute in range(0, 340 * 60, 2):
            values = {**asdict(LOAD), "load_1m": minute % 4, "containers_running": None}
            session.add(ServerSample(server_id=server_id, at=newest - timedelta(minutes=minute), values=values))
    async with sessions() as session:
        day = await samples.plot(session, server_id, 24)
        weeks = await samples.plot(session, server_id, 336)
    assert (day.step_s, len(day.points)) == (60, 720)
    assert [at for at, _ in day.points] == sorted(at for at, _ in day.points)
    assert {values["load_1m"] for _, values in day.points} == {0, 2}
    assert weeks.step_s == 14 * 60
    assert 1430 <= len(weeks.points) <= samples.POINTS
    assert {values["memory_total_bytes"] for _, values in weeks.points} == {1000}
    assert all(0.5 < values["load_1m"] < 1.5 for _, values in weeks.points[1:-1])
    assert weeks.points[0][1]["containers_running"] is None
