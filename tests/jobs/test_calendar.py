"""What the calendar asks for, over a year of days; the clock is a parameter."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, insert, select, update

from alfa_cloud.db import SessionFactory, make_engine, make_session_factory
from alfa_cloud.jobs.calendar import Rules, remind, turn
from alfa_cloud.models import Client, ExpireDate, Operation, Reminder
from alfa_cloud.services import control, letters
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_server

DAYS = (30, 14, 7, 3, 1)
FIRST = date(2027, 1, 1)
MANY = 1_000_000


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[SessionFactory]:
    """Sessions on connections that are kept: a year has many of them."""
    engine = make_engine(database_url)
    yield make_session_factory(engine)
    await engine.dispose()


def rules(zone: str = "Europe/Moscow", **values: Any) -> Rules:
    """The usual settings."""
    return Rules(ZoneInfo(zone), **{"reminder_days": DAYS, "letters_at_once": MANY, **values})


def noon(day: date, zone: str = "Europe/Moscow", hour: int = 12) -> datetime:
    """A moment of a day there."""
    return datetime.combine(day, time(hour), ZoneInfo(zone)).astimezone(UTC)


async def make_clients(sessions: SessionFactory, vault: Vault, count: int, **values: Any) -> list[int]:
    """Clients that are alive and have stood since long."""
    values = {"created_at": datetime(2020, 1, 1, tzinfo=UTC), **values}
    async with sessions.begin() as session:
        server = await make_server(session)
        first = await make_client(session, vault, server, **values)
        row = {"server_id": server.id, "app_key": b"", "database_password": b"", "email": "lab@example.org"}
        row |= {"owner_login": "lab@example.org", "image": "x", "status": ClientStatus.ACTIVE, **values}
        more = [{**row, "name": f"many-{n}", "domain": f"many-{n}.test"} for n in range(count - 1)]
        if not more:
            return [first.id]
        return [first.id, *await session.scalars(insert(Client).returning(Client.id), more)]


async def set_dates(sessions: SessionFactory, dates: dict[int, date | None], at: datetime) -> None:
    """Last days of use, set at a moment."""
    async with sessions.begin() as session:
        await session.execute(update(Client), [{"id": key, "expire_date": day} for key, day in dates.items()])
        rows = [{"client_id": key, "new_date": day, "created_at": at} for key, day in dates.items()]
        await session.execute(insert(ExpireDate), rows)


async def reminders(sessions: SessionFactory) -> list[tuple[int, date, int]]:
    """Every reminder that was asked for; each has its operation."""
    async with sessions() as session:
        rows = await session.execute(
            select(Reminder.client_id, Reminder.expire_date, Reminder.days, Operation.kind, Operation.client_id)
            .join(Operation, Operation.id == Reminder.operation_id)
            .order_by(Reminder.client_id, Reminder.expire_date, Reminder.days.desc())
        )
        found = rows.all()
        count = await session.scalar(
            select(func.count()).select_from(Operation).where(Operation.kind == OperationKind.SEND_EXPIRE)
        )
    assert all((row[3], row[4]) == (OperationKind.SEND_EXPIRE, row[0]) for row in found)
    assert count == len(found)
    return [(row[0], row[1], row[2]) for row in found]


async def test_a_year_of_a_thousand_clients_misses_no_reminder_and_sends_none_twice(
    sessions: SessionFactory, vault: Vault
) -> None:
    chance = random.Random(7)  # the same year each time
    ids = await make_clients(sessions, vault, 1000)
    term: dict[int, date | None] = {}
    wanted: dict[tuple[int, date, int], int] = defaultdict(int)
    year, asked = rules(), 0
    for number in range(365):
        today = FIRST + timedelta(days=number)
        changed: dict[int, date | None] = {
            key: chance.choice([today + timedelta(days=chance.randint(-3, 120)), term.get(key), None])
            for key in (ids if number == 0 else chance.sample(ids, 15))
        }
        term |= changed
        await set_dates(sessions, changed, noon(today, hour=8))
        for key, last in term.items():
            if last is not None and (last - today).days in DAYS:
                wanted[key, last, (last - today).days] = 1
        for hour in (8, 9, 9, 17) if number % 30 == 0 else (10,):
            async with sessions.begin() as session:
                asked += await remind(session, noon(today, hour=hour), year) if hour >= 9 else 0
    found = await reminders(sessions)
    assert len(found) == asked > 2000
    assert set(found) == set(wanted)


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        (range(0), [30, 14, 7, 3, 1]),
        (range(20, 35), [30, 7, 3, 1]),  # the 14th day before was missed, and the 7th was the nearest on return
        (range(5, 30), [14, 7, 3, 1]),  # back 11 days before: the letter of the 14th tells of 11
        (range(60), []),
    ],
)
async def test_after_an_outage_only_the_nearest_reminder_is_sent(
    sessions: SessionFactory, vault: Vault, away: Sequence[int], expected: list[int]
) -> None:
    ids = await make_clients(sessions, vault, 1)
    last = FIRST + timedelta(days=41)
    await set_dates(sessions, {ids[0]: last}, noon(FIRST - timedelta(days=100)))
    for number in range(60):
        if number not in away:
            await turn(sessions, noon(FIRST + timedelta(days=number)), rules(block=False))
    assert [days for _, _, days in await reminders(sessions)] == expected


async def test_a_date_that_is_set_late_brings_no_letters_of_the_past(sessions: SessionFactory, vault: Vault) -> None:
    ids = await make_clients(sessions, vault, 3)
    dates: dict[int, date | None] = {
        ids[0]: FIRST + timedelta(days=20),
        ids[1]: FIRST + timedelta(days=7),
        ids[2]: None,
    }
    await set_dates(sessions, dates, noon(FIRST, hour=11))
    await turn(sessions, noon(FIRST), rules())
    assert await reminders(sessions) == [(ids[1], FIRST + timedelta(days=7), 7)]


async def test_a_date_set_back_is_not_told_of_again(sessions: SessionFactory, vault: Vault) -> None:
    ids = await make_clients(sessions, vault, 1)
    near, far = FIRST + timedelta(days=7), FIRST + timedelta(days=90)
    for day in (near, far, near):
        await set_dates(sessions, {ids[0]: day}, noon(FIRST, hour=10))
        await turn(sessions, noon(FIRST), rules())
    assert await reminders(sessions) == [(ids[0], near, 7)]


@pytest.mark.parametrize("zone", ["Europe/Moscow", "America/New_York", "Pacific/Apia"])
async def test_letters_leave_from_the_hour_there(sessions: SessionFactory, vault: Vault, zone: str) -> None:
    ids = await make_clients(sessions, vault, 1)
    await set_dates(sessions, {ids[0]: FIRST + timedelta(days=3)}, noon(FIRST - timedelta(days=50)))
    midnight = datetime.combine(FIRST, time(0), ZoneInfo(zone)).astimezone(UTC)
    only = rules(zone, reminder_days=(3,), from_hour=9)
    sent = []
    for hour in range(-6, 24):
        before = len(await reminders(sessions))
        await turn(sessions, midnight + timedelta(hours=hour), only)
        if len(await reminders(sessions)) > before:
            sent.append(hour)
    assert sent == [9]


async def test_only_so_many_letters_wait_at_once(sessions: SessionFactory, vault: Vault) -> None:
    ids = await make_clients(sessions, vault, 20)
    await set_dates(sessions, {key: FIRST + timedelta(days=7) for key in ids}, noon(FIRST, hour=10))
    few = rules(letters_at_once=8)
    for _ in range(2):
        await turn(sessions, noon(FIRST), few)
    assert len(await reminders(sessions)) == 8
    await end_all(sessions)
    await turn(sessions, noon(FIRST), few)
    assert len(await reminders(sessions)) == 16


async def test_reminders_are_switched_off(sessions: SessionFactory, vault: Vault) -> None:
    ids = await make_clients(sessions, vault, 1)
    await set_dates(sessions, {ids[0]: FIRST + timedelta(days=7)}, noon(FIRST, hour=10))
    await turn(sessions, noon(FIRST), rules(reminder_days=()))
    assert await reminders(sessions) == []


async def test_a_letter_says_that_the_term_has_ended_where_that_is_wanted(
    sessions: SessionFactory, vault: Vault
) -> None:
    ids = await make_clients(sessions, vault, 2, blocked=True, status=ClientStatus.EXPIRED)
    await set_dates(sessions, {ids[0]: FIRST, ids[1]: FIRST - timedelta(days=60)}, noon(FIRST))
    for number in range(4):
        await turn(sessions, noon(FIRST + timedelta(days=number)), rules(block=False, reminder_days=()))
    assert await reminders(sessions) == []
    for number in range(4):
        await turn(sessions, noon(FIRST + timedelta(days=number)), rules(expired_letter=True, block=False))
    assert await reminders(sessions) == [(ids[0], FIRST, 0)]


async def letters_asked_for(sessions: SessionFactory) -> list[tuple[Any, Any]]:
    """How far before the end each letter is that was asked for, and where it stands; in order."""
    async with sessions() as session:
        query = select(Operation).where(Operation.kind == OperationKind.SEND_EXPIRE).order_by(Operation.id)
        return [(row.params["days"], row.state) for row in await session.scalars(query)]


@pytest.mark.parametrize("state", [OperationState.ERROR, OperationState.CANCELLED])
async def test_a_letter_that_did_not_leave_is_asked_for_again_each_hour_while_it_is_true(
    sessions: SessionFactory, vault: Vault, state: OperationState
) -> None:
    ids = await make_clients(sessions, vault, 1)
    now = datetime.now(UTC)
    every_hour = rules("UTC", from_hour=0, block=False)
    await set_dates(sessions, {ids[0]: now.date() + timedelta(days=7)}, now - timedelta(days=100))
    await turn(sessions, now, every_hour)
    for number in (1, 2):
        await end_all(sessions, state)
        for minutes in (1, 58):
            await turn(sessions, now + timedelta(minutes=minutes), every_hour)
        assert await letters_asked_for(sessions) == [(7, state)] * number
        await turn(sessions, now + timedelta(minutes=62), every_hour)
        await turn(sessions, now + timedelta(minutes=63), every_hour)
        assert await letters_asked_for(sessions) == [(7, state)] * number + [(7, OperationState.QUEUED)]
    async with sessions() as session:
        asked = list(await session.scalars(select(Operation).order_by(Operation.id)))
        assert {await letters.message_id(session, operation) for operation in asked} == {str(asked[0].id)}
    await end_all(sessions)
    await turn(sessions, now + timedelta(hours=5), every_hour)
    assert len(await letters_asked_for(sessions)) == 3


async def test_a_letter_that_did_not_leave_gives_way_to_a_nearer_one(sessions: SessionFactory, vault: Vault) -> None:
    ids = await make_clients(sessions, vault, 1)
    now = datetime.now(UTC)
    every_hour = rules("UTC", from_hour=0, block=False)
    await set_dates(sessions, {ids[0]: now.date() + timedelta(days=7)}, now - timedelta(days=100))
    await turn(sessions, now, every_hour)
    await end_all(sessions, OperationState.ERROR)
    for day in range(4, 20):
        await turn(sessions, now + timedelta(days=day), every_hour)
        await end_all(sessions)
    assert await letters_asked_for(sessions) == [(7, OperationState.ERROR), (3, "ok"), (1, "ok")]


async def test_a_letter_that_somebody_tries_again_is_not_asked_for_beside_it(
    sessions: SessionFactory, vault: Vault
) -> None:
    ids = await make_clients(sessions, vault, 1)
    now = datetime.now(UTC)
    every_hour = rules("UTC", from_hour=0, block=False)
    await set_dates(sessions, {ids[0]: now.date() + timedelta(days=7)}, now - timedelta(days=100))
    await turn(sessions, now, every_hour)
    await end_all(sessions, OperationState.ERROR)
    async with sessions.begin() as session:
        failed = await session.scalar(select(Operation.id))
        assert failed is not None
        await control.retry(session, failed, Caller())
        asking = asyncio.create_task(turn(sessions, now + timedelta(hours=2), every_hour))
        await asyncio.sleep(0.3)
        assert not asking.done()
    await asking
    assert await letters_asked_for(sessions) == [(7, "error"), (7, "queued")]
    await end_all(sessions)
    await turn(sessions, now + timedelta(hours=4), every_hour)
    assert await letters_asked_for(sessions) == [(7, "error"), (7, "ok")]


async def test_the_letter_after_the_end_is_asked_for_again_too(sessions: SessionFactory, vault: Vault) -> None:
    ids = await make_clients(sessions, vault, 1, blocked=True, status=ClientStatus.EXPIRED)
    now = datetime.now(UTC)
    told = rules("UTC", from_hour=0, block=False, expired_letter=True, reminder_days=())
    await set_dates(sessions, {ids[0]: now.date() - timedelta(days=1)}, now - timedelta(days=100))
    for hours in (0, 2, 4):
        await turn(sessions, now + timedelta(hours=hours), told)
        await end_all(sessions, OperationState.ERROR if hours == 0 else OperationState.OK)
    assert await letters_asked_for(sessions) == [(0, "error"), (0, "ok")]


# Blocking


async def asked_for(sessions: SessionFactory) -> list[tuple[int | None, str]]:
    """The clients whose servers are to be told, and where that stands."""
    async with sessions() as session:
        query = select(Operation.client_id, Operation.state).where(Operation.kind == OperationKind.SET_EXPIRE_DATE)
        return [(row[0], row[1]) for row in await session.execute(query.order_by(Operation.created_at))]


async def end_all(sessions: SessionFactory, state: OperationState = OperationState.OK, **client: Any) -> None:
    """Every operation has ended, and this is what it left of its client."""
    async with sessions.begin() as session:
        open_ones = Operation.state == OperationState.QUEUED
        ids = list(await session.scalars(select(Operation.client_id).where(open_ones)))
        values = {"state": state, "finished_at": func.clock_timestamp()}
        await session.execute(update(Operation).where(open_ones).values(**values))
        if client:
            await session.execute(update(Client).where(Client.id.in_(ids)).values(**client))


@pytest.mark.parametrize("zone", ["Europe/Moscow", "America/New_York", "Pacific/Apia"])
async def test_a_client_is_blocked_once_from_the_first_minute_of_the_day_after(
    sessions: SessionFactory, vault: Vault, zone: str
) -> None:
    ids = await make_clients(sessions, vault, 2)
    await set_dates(sessions, {ids[0]: FIRST, ids[1]: FIRST + timedelta(days=1)}, noon(FIRST))
    after = datetime.combine(FIRST + timedelta(days=1), time(0), ZoneInfo(zone)).astimezone(UTC)
    only = rules(zone, reminder_days=())
    await turn(sessions, after - timedelta(minutes=1), only)
    assert await asked_for(sessions) == []
    for minute in range(3):
        await turn(sessions, after + timedelta(minutes=minute), only)
    assert await asked_for(sessions) == [(ids[0], "queued")]
    await end_all(sessions, blocked=True, status=ClientStatus.EXPIRED)
    await turn(sessions, after + timedelta(minutes=5), only)
    assert await asked_for(sessions) == [(ids[0], "ok")]


async def test_blocking_that_failed_is_asked_for_again_an_hour_later(sessions: SessionFactory, vault: Vault) -> None:
    ids = await make_clients(sessions, vault, 1)
    now = datetime.now(UTC)
    await set_dates(sessions, {ids[0]: now.date() - timedelta(days=2)}, now)
    await turn(sessions, now, rules(reminder_days=()))
    await end_all(sessions, OperationState.ERROR)
    for minutes in (1, 30, 59):
        await turn(sessions, now + timedelta(minutes=minutes), rules(reminder_days=()))
    assert await asked_for(sessions) == [(ids[0], "error")]
    await turn(sessions, now + timedelta(minutes=62), rules(reminder_days=()))
    assert await asked_for(sessions) == [(ids[0], "error"), (ids[0], "queued")]


@pytest.mark.parametrize("block", [True, False])
async def test_a_client_that_is_blocked_without_a_reason_is_let_in_again(
    sessions: SessionFactory, vault: Vault, *, block: bool
) -> None:
    ids = await make_clients(sessions, vault, 3, blocked=True, status=ClientStatus.EXPIRED)
    dates: dict[int, date | None] = {ids[0]: FIRST + timedelta(days=9), ids[1]: None, ids[2]: FIRST - timedelta(days=1)}
    await set_dates(sessions, dates, noon(FIRST))
    await turn(sessions, noon(FIRST), rules(reminder_days=(), block=block))
    assert sorted(await asked_for(sessions)) == [(ids[0], "queued"), (ids[1], "queued")]


async def test_blocking_is_switched_off(sessions: SessionFactory, vault: Vault) -> None:
    ids = await make_clients(sessions, vault, 1)
    await set_dates(sessions, {ids[0]: FIRST - timedelta(days=5)}, noon(FIRST))
    await turn(sessions, noon(FIRST), rules(reminder_days=(), block=False))
    assert await asked_for(sessions) == []


@pytest.mark.parametrize("status", [ClientStatus.CREATING, ClientStatus.FAILED, ClientStatus.ARCHIVED])
async def test_a_client_that_is_not_alive_is_left_alone(
    sessions: SessionFactory, vault: Vault, status: ClientStatus
) -> None:
    ids = await make_clients(sessions, vault, 2, status=status)
    await set_dates(sessions, {ids[0]: FIRST + timedelta(days=7), ids[1]: FIRST - timedelta(days=7)}, noon(FIRST))
    await turn(sessions, noon(FIRST), rules())
    assert (await reminders(sessions), await asked_for(sessions)) == ([], [])
