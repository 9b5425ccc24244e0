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
