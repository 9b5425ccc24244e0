"""What is brought to its end by the clock, which is a parameter: deletions, and what moves left behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from alfa_cloud.db import SessionFactory
from alfa_cloud.jobs.sweeping import ASK_AGAIN, AT_ONCE, sweep
from alfa_cloud.models import Client, Operation, Place
from alfa_cloud.services import operations, places
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_operation, make_place, make_server

SECOND = timedelta(seconds=1)


@pytest.fixture
async def now(sessions: SessionFactory) -> datetime:
    """The database's clock as the test began."""
    async with sessions() as session:
        return await operations.database_now(session)


async def make(sessions: SessionFactory, vault: Vault, **values: Any) -> int:
    """A client's id."""
    async with sessions.begin() as session:
        return (await make_client(session, vault, await make_server(session), **values)).id


async def ended(
    sessions: SessionFactory, client_id: int, kind: OperationKind, at: datetime, params: Any = None, **values: Any
) -> None:
    """An operation on a client, that failed then."""
    async with sessions.begin() as session:
        client = await session.get_one(Client, client_id)
        values = {"server_id": client.server_id, "params": params or {}, **values}
        operation = await make_operation(session, kind=kind, client_id=client_id, **values)
        operation.state, operation.finished_at = OperationState.ERROR, at


async def asked(sessions: SessionFactory, kind: OperationKind) -> Sequence[Operation]:
    """The operations of a kind that wait."""
    async with sessions() as session:
        query = select(Operation).where(Operation.kind == kind, Operation.state == OperationState.QUEUED)
        return (await session.scalars(query.order_by(Operation.client_id, Operation.server_id))).all()


@pytest.mark.parametrize("params", [{}, {"keep_archive": False}])
async def test_a_deletion_that_failed_is_asked_for_again_after_five_minutes(
    sessions: SessionFactory, vault: Vault, now: datetime, params: dict[str, Any]
) -> None:
    client_id = await make(sessions, vault, status=ClientStatus.DELETING)
    await ended(sessions, client_id, OperationKind.DELETE_CLIENT, now - ASK_AGAIN, {"of": "an earlier one"})
    await ended(sessions, client_id, OperationKind.DELETE_CLIENT, now, params)
    assert await sweep(sessions, now + ASK_AGAIN - SECOND) == 0
    assert await sweep(sessions, now + ASK_AGAIN + SECOND) == 1
    (again,) = await asked(sessions, OperationKind.DELETE_CLIENT)
    assert again.params == params
    async with sessions() as session:
        client = await session.get_one(Client, client_id)
    assert (client.status, client.operation_id, client.server_id) == (
        ClientStatus.DELETING, again.id, again.server_id,
    )  # fmt: skip
    for later in (ASK_AGAIN * 2, timedelta(days=1)):
        assert await sweep(sessions, now + later) == 0, "it is queued still"


async def test_a_deletion_whose_operation_is_not_kept_is_asked_for_at_once(
    sessions: SessionFactory, vault: Vault, now: datetime
) -> None:
    await make(sessions, vault, status=ClientStatus.DELETING)
    assert await sweep(sessions, now) == 1
    assert [one.params for one in await asked(sessions, OperationKind.DELETE_CLIENT)] == [{}]


@pytest.mark.parametrize("status", [status for status in ClientStatus if status != ClientStatus.DELETING])
async def test_only_what_is_being_deleted_is_deleted(
    sessions: SessionFactory, vault: Vault, now: datetime, status: ClientStatus
) -> None:
    client_id = await make(sessions, vault, status=status)
    await ended(sessions, client_id, OperationKind.DELETE_CLIENT, now)
    assert await sweep(sessions, now + timedelta(days=1)) == 0


async def test_many_deletions_are_asked_for_in_turns(sessions: SessionFactory, vault: Vault, now: datetime) -> None:
    for _ in range(AT_ONCE + 1):
        await make(sessions, vault, status=ClientStatus.DELETING)
    assert [await sweep(sessions, now) for _ in range(3)] == [AT_ONCE, 1, 0]


@pytest.fixture
async def left(sessions: SessionFactory, vault: Vault, now: datetime) -> Place:
    """What a client left on another server: its data for a day, what sends visitors on for a week."""
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session))
        days = {"keep_until": now + timedelta(days=1), "forward_until": now + timedelta(days=7)}
        return await make_place(session, client, await make_server(session), **days)


async def change(sessions: SessionFactory, place: Place, **values: Any) -> None:
    async with sessions.begin() as session:
        row = await session.get_one(Place, (place.client_id, place.server_id))
        for name, value in values.items():
            setattr(row, name, value)


async def finish(sessions: SessionFactory, at: datetime) -> None:
    """What waits has been done then."""
    async with sessions.begin() as session:
        for operation in await session.scalars(select(Operation).where(Operation.state == OperationState.QUEUED)):
            operation.state, operation.finished_at = OperationState.OK, at


async def test_the_data_goes_first_and_what_sends_visitors_on_later(
    sessions: SessionFactory, left: Place, now: datetime
) -> None:
    day, week = now + timedelta(days=1), now + timedelta(days=7)
    assert await sweep(sessions, day - SECOND) == 0
    assert await sweep(sessions, day) == 1
    (first,) = await asked(sessions, OperationKind.CLEAR_PLACE)
    assert (first.client_id, first.server_id) == (left.client_id, left.server_id)
    assert await sweep(sessions, day) == 0
    await finish(sessions, day)
    async with sessions.begin() as session:
        await places.data_is_gone(session, left.client_id, left.server_id)
    for moment in (day + SECOND, day + ASK_AGAIN * 2, week - SECOND):
        assert await sweep(sessions, moment) == 0
    assert await sweep(sessions, week) == 1
    await finish(sessions, week)
    async with sessions.begin() as session:
        await places.forget(session, left.client_id, left.server_id)
    assert await sweep(sessions, week + timedelta(days=1)) == 0


async def test_a_clearing_that_failed_is_asked_for_again_after_five_minutes(
    sessions: SessionFactory, left: Place, now: datetime
) -> None:
    day = now + timedelta(days=1)
    await ended(sessions, left.client_id, OperationKind.CLEAR_PLACE, day, server_id=left.server_id)
    assert await sweep(sessions, day + ASK_AGAIN - SECOND) == 0
    assert await sweep(sessions, day + ASK_AGAIN + SECOND) == 1


@pytest.mark.parametrize(
    "status", [one for one in ClientStatus if one not in (ClientStatus.ACTIVE, ClientStatus.EXPIRED)]
)
async def test_nothing_is_taken_away_while_the_client_moves_or_goes(
    sessions: SessionFactory, left: Place, now: datetime, status: ClientStatus
) -> None:
    async with sessions.begin() as session:
        (await session.get_one(Client, left.client_id)).status = status
    later = now + timedelta(days=30)
    await sweep(sessions, later)
    assert await asked(sessions, OperationKind.CLEAR_PLACE) == []


async def test_nothing_is_taken_from_a_server_that_the_client_is_on_or_on_its_way_to(
    sessions: SessionFactory, left: Place, now: datetime
) -> None:
    later = now + timedelta(days=30)
    await change(sessions, left, kept=False, keep_until=None, forward_until=None)
    assert await sweep(sessions, later) == 0
    await change(sessions, left, keep_until=now, forward_until=now)
    async with sessions.begin() as session:
        client = await session.get_one(Client, left.client_id)
        own, client.server_id = client.server_id, left.server_id
    assert await sweep(sessions, later) == 0
    async with sessions.begin() as session:
        (await session.get_one(Client, left.client_id)).server_id = own
    assert await sweep(sessions, later) == 1


async def test_a_term_that_has_ended_keeps_nothing_longer(sessions: SessionFactory, left: Place, now: datetime) -> None:
    async with sessions.begin() as session:
        (await session.get_one(Client, left.client_id)).status = ClientStatus.EXPIRED
    assert await sweep(sessions, now + timedelta(days=1)) == 1
