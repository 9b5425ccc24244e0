"""What the database does with a process of ours that does nothing more."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, InterfaceError

from alfa_cloud import db


async def test_who_stops_in_a_transaction_holds_its_locks_no_longer_than_promised(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "IDLE_S", 1)
    stopped, other = db.make_engine(database_url), db.make_engine(database_url)
    holding = await stopped.connect()
    await holding.execute(select(func.pg_advisory_xact_lock(1)))
    async with asyncio.timeout(30), other.begin() as waiting:
        await waiting.execute(select(func.pg_advisory_xact_lock(1)))
    with pytest.raises(DBAPIError) as raised:
        await holding.execute(select(1))
    assert db.database_is_away(raised.value)
    with suppress(InterfaceError):
        await holding.close()
    await stopped.dispose()
    await other.dispose()


async def test_who_stops_between_preparing_and_running_holds_no_lock_for_ever(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, other = db.make_engine(database_url), db.make_engine(database_url)
    with monkeypatch.context() as short:
        short.setattr(db, "TRANSACTION_S", 2)
        holding = await stopped.connect()
    await holding.execute(select(func.pg_advisory_xact_lock(2)))
    driver = (await holding.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.prepare("SELECT 1")
    async with asyncio.timeout(30), other.begin() as waiting:
        await waiting.execute(select(func.pg_advisory_xact_lock(2)))
    with pytest.raises((DBAPIError, InterfaceError)) as raised:
        await holding.execute(select(1))
    assert db.database_is_away(raised.value)
    with suppress(InterfaceError):
        await holding.close()
    await stopped.dispose()
    await other.dispose()


async def test_a_connection_that_the_database_closed_is_not_handed_out(database_url: str) -> None:
    ours, other = db.make_engine(database_url), db.make_engine(database_url)
    async with ours.connect() as connection:
        first = await connection.scalar(select(func.pg_backend_pid()))
    async with other.connect() as connection:
        assert await connection.scalar(select(func.pg_terminate_backend(first)))
    await asyncio.sleep(0.5)
    async with ours.connect() as connection:
        assert await connection.scalar(select(func.pg_backend_pid())) != first
    await ours.dispose()
    await other.dispose()
