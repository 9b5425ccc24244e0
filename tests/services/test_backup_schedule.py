"""Which back-ups are due, which have outlived their time, which are proven; the clock is a parameter."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, update
from uuid6 import uuid7

from alfa_cloud.db import SessionFactory, make_engine, make_session_factory
from alfa_cloud.jobs import backing_up
from alfa_cloud.models import Backup, Client, Operation
from alfa_cloud.profile import Keeping
from alfa_cloud.services import backup_schedule, outcomes
from alfa_cloud.services.backup_schedule import Rules, last_hour, outlived
from alfa_cloud.services.outcomes import Ended
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_operation, make_server

ZONE = ZoneInfo("Europe/Moscow")
FIRST = datetime(2027, 1, 1, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[SessionFactory]:
    """Sessions on connections that are kept: weeks of turns have many of them."""
    engine = make_engine(database_url)
    yield make_session_factory(engine)
    await engine.dispose()


def rules(zone: str = "Europe/Moscow", **values: Any) -> Rules:
    """The usual settings."""
    return Rules(Keeping(**values), ZoneInfo(zone))


def a_backup(at: datetime, reason: str = "schedule", **values: Any) -> Backup:
    """A back-up of one client, without a row."""
    values = {"proof_error": "", "keep_until": None, **values}
    return Backup(id=uuid7(), client_id=1, server_id=1, name="x", reason=reason, created_at=at, **values)


# Which have outlived their time


def expected(history: list[Backup], today: date, keeping: Keeping) -> set[UUID]:
    """What the settings say of a whole history, in other words than the service's."""

    def day(row: Backup) -> date:
        return row.created_at.astimezone(ZONE).date()

    months = [today.replace(day=1)]
    while len(months) < keeping.monthly:
        months.append((months[-1] - timedelta(days=1)).replace(day=1))
    wanted: list[tuple[Callable[[date], object], Sequence[object]]] = [
        (lambda found: found, [today - timedelta(days=back) for back in range(keeping.daily)]),
        (_iso_week, [_iso_week(today - timedelta(weeks=back)) for back in range(keeping.weekly)]),
        (lambda found: found.replace(day=1), months),
    ]
    return {
        max((row for row in history if period(day(row)) == one), key=lambda row: (row.created_at, row.id)).id
        for period, some in wanted
        for one in some
        if any(period(day(row)) == one for row in history)
    }


def _iso_week(day: date) -> tuple[int, int]:
    year, week, _ = day.isocalendar()
    return year, week


@pytest.mark.parametrize("often", [1, 3], ids=["daily", "three-a-day"])
def test_a_year_of_scheduled_backups_leaves_what_the_settings_say(often: int) -> None:
    keeping, chance = Keeping(), random.Random(7)
    history: list[Backup] = []
    present: list[Backup] = []
    for day in range(400):
        for _ in range(often):
            if chance.random() < 0.9:  # some nights nothing works
                made = a_backup(FIRST + timedelta(days=day, minutes=chance.randrange(1400)))
                history.append(made)
                present.append(made)
        now = FIRST + timedelta(days=day, hours=24)
        gone = outlived(present, now, Rules(keeping, ZONE), archived=False)
        present = [row for row in present if row not in gone]
        assert {row.id for row in present} == expected(history, now.astimezone(ZONE).date(), keeping)
        assert outlived(present, now, Rules(keeping, ZONE), archived=False) == []
    assert len(present) <= 7 + 4 + 6


@pytest.mark.parametrize(("hour", "days"), [(20, 1), (21, 2)])
def test_days_are_those_of_the_zone(hour: int, days: int) -> None:
    rows = [a_backup(datetime(2027, 1, 5, 12, tzinfo=UTC)), a_backup(datetime(2027, 1, 5, hour, tzinfo=UTC))]
    now = datetime(2027, 1, 6, 12, tzinfo=UTC)
    gone = outlived(rows, now, rules(daily=2, weekly=0, monthly=0), archived=False)
    assert len(rows) - len(gone) == days


def test_the_last_good_backup_of_a_client_that_lives_stays() -> None:
    now = FIRST + timedelta(days=3000)
    good = a_backup(FIRST, "command", keep_until=FIRST + timedelta(days=1))
    older = a_backup(FIRST - timedelta(days=1))
    damaged = a_backup(FIRST + timedelta(days=1), proof_error="damaged")
    assert outlived([damaged, good, older], now, rules(), archived=False) == [older, damaged]
    assert outlived([damaged], now, rules(), archived=False) == []
    assert outlived([], now, rules(), archived=False) == []


def test_a_damaged_one_stands_for_no_day_and_is_shown_for_a_while() -> None:
    damaged = a_backup(FIRST, proof_error="damaged")
    good = a_backup(FIRST - timedelta(hours=6))
    fresh = a_backup(FIRST + timedelta(days=1))
    rows = [damaged, good, fresh]
    assert outlived(rows, FIRST + timedelta(days=6), rules(), archived=False) == []
    assert outlived(rows, FIRST + timedelta(days=7), rules(), archived=False) == [good, damaged]


def test_others_stay_until_their_time_is_over() -> None:
    last = a_backup(FIRST + timedelta(days=50))
    for reason in ("command", "restore", "final"):
        row = a_backup(FIRST, reason, keep_until=FIRST + timedelta(days=60))
        for days, gone in ((59.9, []), (60, [row])):
            assert outlived([row, last], FIRST + timedelta(days=days), rules(), archived=False) == gone


def test_with_the_archive_of_a_deleted_client_everything_of_it_goes() -> None:
    final = a_backup(FIRST, "final", keep_until=FIRST + timedelta(days=90))
    scheduled = a_backup(FIRST - timedelta(days=1))
    rows = [final, scheduled]
    assert outlived(rows, FIRST + timedelta(days=89), rules(), archived=True) == []
    assert outlived(rows, FIRST + timedelta(days=90), rules(), archived=True) == [scheduled, final]
    assert outlived([scheduled], FIRST + timedelta(days=1), rules(), archived=True) == [scheduled]


# Which are due


@pytest.mark.parametrize(
    ("now", "zone", "hour"),
    [
        (datetime(2027, 1, 5, 0, 0, tzinfo=UTC), "Europe/Moscow", datetime(2027, 1, 5, 0, 0, tzinfo=UTC)),
        (datetime(2027, 1, 4, 23, 59, tzinfo=UTC), "Europe/Moscow", datetime(2027, 1, 4, 0, 0, tzinfo=UTC)),
        (datetime(2027, 1, 5, 17, 59, tzinfo=UTC), "Asia/Tokyo", datetime(2027, 1, 4, 18, 0, tzinfo=UTC)),
        (datetime(2027, 3, 28, 1, 30, tzinfo=UTC), "Europe/Berlin", datetime(2027, 3, 28, 1, 0, tzinfo=UTC)),
        (datetime(2027, 10, 31, 1, 59, tzinfo=UTC), "Europe/Berlin", datetime(2027, 10, 30, 1, 0, tzinfo=UTC)),
        (datetime(2027, 10, 31, 2, 0, tzinfo=UTC), "Europe/Berlin", datetime(2027, 10, 31, 2, 0, tzinfo=UTC)),
    ],
)
def test_the_hour_is_one_of_the_zone(now: datetime, zone: str, hour: datetime) -> None:
    assert last_hour(now, rules(zone)) == last_hour(now.astimezone(ZoneInfo(zone)), rules(zone)) == hour


def test_an_hour_that_no_day_has_is_refused() -> None:
    with pytest.raises(ValueError, match="ALFA_KEEP__HOUR"):
        Keeping(hour=24)


async def make_clients(sessions: SessionFactory, vault: Vault, *counts: int, **values: Any) -> list[list[int]]:
    """The ids of clients that live since long, on as many servers as there are counts."""
    async with sessions.begin() as session:
        found = []
        for count in counts:
            server = await make_server(session)
            values = {"created_at": LONG_AGO, **values}
            found.append([(await make_client(session, vault, server, **values)).id for _ in range(count)])
        return found


async def unfinished(sessions: SessionFactory, kind: OperationKind) -> list[Operation]:
    async with sessions() as session:
        query = select(Operation).where(Operation.kind == kind, Operation.state.in_(("queued", "running")))
        return list(await session.scalars(query.order_by(Operation.id)))


async def finish(
    sessions: SessionFactory, operation: Operation, at: datetime, state: OperationState, **ended: Any
) -> None:
    """An operation has ended at a moment, and its rows say so."""
    async with sessions.begin() as session:
        told = Ended(
            OperationKind(operation.kind), state, operation.id, operation.client_id, operation.server_id,
            params=operation.params, **ended,
        )  # fmt: skip
        await outcomes.apply(session, told)
        done = update(Operation).where(Operation.id == operation.id)
        await session.execute(done.values(state=state, finished_at=at))


async def turn(sessions: SessionFactory, now: datetime, wanted: Rules | None = None) -> None:
    """A turn of the clock; what it asked for was asked for then."""
    async with sessions() as session:
        before = set(await session.scalars(select(Operation.id)))
    await backing_up.turn(sessions, now, wanted or rules())
    async with sessions.begin() as session:
        await session.execute(update(Operation).where(Operation.id.not_in(before)).values(created_at=now))


MADE = {
    "name": "x", "reason": "schedule", "tables": {}, "files_count": 0, "files_bytes": 0, "size_bytes": 1,
    "sha256": "a" * 64, "version": "1",
}  # fmt: skip


async def test_weeks_of_turns_make_one_backup_a_day(sessions: SessionFactory, vault: Vault) -> None:
    """Workers are away at times, and back-ups fail at times: no client misses a day, and none has two."""
    chance = random.Random(11)
    ids = [one for some in await make_clients(sessions, vault, 3, 1) for one in some]
    made: dict[tuple[int, date], int] = defaultdict(int)
    asked_after: dict[int, datetime] = {}
    wanted = rules(prove_days=0)
    now, away_until = FIRST, FIRST
    while now < FIRST + timedelta(days=14):
        now += timedelta(minutes=30)
        if chance.random() < 0.01:
            away_until = now + timedelta(hours=10)
        if now < away_until:
            continue
        await turn(sessions, now, wanted)
        found = await unfinished(sessions, OperationKind.BACK_UP_CLIENT)
        assert max(Counter(row.server_id for row in found).values(), default=0) <= 2
        assert len({row.client_id for row in found}) == len(found)
        for row in found:
            assert row.client_id is not None
            assert now >= asked_after.get(row.client_id, now)
            ended = now + timedelta(minutes=10)
            if chance.random() < 0.1:
                asked_after[row.client_id] = ended + timedelta(hours=1)
                await finish(sessions, row, ended, OperationState.ERROR)
            else:
                made[row.client_id, last_hour(now, wanted).date()] += 1
                await finish(sessions, row, ended, OperationState.OK, result={"backup": MADE})
    days = [(FIRST + timedelta(days=day)).date() for day in range(14)]
    assert {made[client_id, day] for client_id in ids for day in days} == {1}


async def test_who_is_not_alive_or_is_younger_than_the_hour_waits(sessions: SessionFactory, vault: Vault) -> None:
    now = datetime(2027, 1, 5, 12, tzinfo=UTC)
    (chosen,) = await make_clients(sessions, vault, 1, status=ClientStatus.EXPIRED)
    for status in set(ClientStatus) - {ClientStatus.ACTIVE, ClientStatus.EXPIRED}:
        await make_clients(sessions, vault, 1, status=status)
    await make_clients(sessions, vault, 1, activated_at=datetime(2027, 1, 5, 0, 1, tzinfo=UTC))
    (older,) = await make_clients(sessions, vault, 1, activated_at=datetime(2027, 1, 4, 23, 59, tzinfo=UTC))
    async with sessions() as session:
        assert await backup_schedule.due(session, now, rules()) == sorted(chosen + older)
        assert await backup_schedule.due(session, now, rules(scheduled=False)) == []


async def test_the_client_without_a_backup_goes_first_then_the_oldest(sessions: SessionFactory, vault: Vault) -> None:
    ((fresh, old, none),) = await make_clients(sessions, vault, 3)
    async with sessions.begin() as session:
        for client_id, at in ((fresh, FIRST), (old, LONG_AGO)):
            await session.execute(update(Client).where(Client.id == client_id).values(last_backup_at=at))
    async with sessions() as session:
        assert await backup_schedule.due(session, FIRST + timedelta(days=2), rules()) == [none, old]


async def test_what_others_ask_for_is_no_backup_of_the_day(sessions: SessionFactory, vault: Vault) -> None:
    ((client_id,),) = await make_clients(sessions, vault, 1)
    async with sessions.begin() as session:
        client = await session.get_one(Client, client_id)
        await make_operation(
            session, kind=OperationKind.BACK_UP_CLIENT, client_id=client_id, server_id=client.server_id, params={}
        )
    async with sessions() as session:
        assert await backup_schedule.due(session, datetime.now(UTC) + timedelta(days=1), rules()) == [client_id]


# Proofs


async def keep_backup(sessions: SessionFactory, client_id: int, at: datetime, **values: Any) -> UUID:
    """A back-up of a client, with a row; its id."""
    async with sessions.begin() as session:
        server_id = values.pop("server_id", None) or (await session.get_one(Client, client_id)).server_id
        row = a_backup(at, **values)
        row.client_id, row.server_id = client_id, server_id
        row.files_count = row.files_bytes = row.size_bytes = 1
        row.sha256 = "a" * 64
        session.add(row)
        return row.id


async def test_the_newest_backup_of_each_client_is_proven_every_week(sessions: SessionFactory, vault: Vault) -> None:
    one, other = await make_clients(sessions, vault, 3, 1)
    wanted = rules(scheduled=False, daily=10_000)
    proofs: dict[int, list[datetime]] = defaultdict(list)
    now = FIRST
    while now < FIRST + timedelta(days=30):
        if now.time() == time(12):
            newest = {client_id: await keep_backup(sessions, client_id, now) for client_id in (*one, *other)}
        await turn(sessions, now, wanted)
        found = await unfinished(sessions, OperationKind.PROVE_BACKUP)
        assert max(Counter(row.server_id for row in found).values(), default=0) <= 1
        for row in found:
            assert row.client_id is not None
            assert (row.locks_client, row.params) == (False, {"backup_id": str(newest[row.client_id])})
            proofs[row.client_id].append(now)
            await finish(sessions, row, now, OperationState.OK)
            async with sessions.begin() as session:  # by the clock of this test
                which = update(Client).where(Client.id == row.client_id)
                await session.execute(which.values(last_proven_at=now))
        now += timedelta(hours=3)
    assert {len(moments) for moments in proofs.values()} == {5}
    assert set(proofs) == {*one, *other}
    for moments in proofs.values():
        assert all(
            timedelta(days=7) <= later - earlier < timedelta(days=7, hours=12) for earlier, later in pairwise(moments)
        )


async def test_no_proof_where_none_is_wanted(sessions: SessionFactory, vault: Vault) -> None:
    ((client_id,),) = await make_clients(sessions, vault, 1)
    await keep_backup(sessions, client_id, FIRST)
    async with sessions() as session:
        assert await backup_schedule.due_proofs(session, FIRST, rules(prove_days=0)) == []
        assert len(await backup_schedule.due_proofs(session, FIRST, rules())) == 1


async def test_a_damaged_backup_is_shown_and_followed_by_another_at_once(
    sessions: SessionFactory, vault: Vault
) -> None:
    ((client_id,),) = await make_clients(sessions, vault, 1)
    good = await keep_backup(sessions, client_id, FIRST - timedelta(days=1))
    newest = await keep_backup(sessions, client_id, FIRST)
    now = FIRST + timedelta(minutes=1)
    await turn(sessions, now)
    (made,) = await unfinished(sessions, OperationKind.BACK_UP_CLIENT)
    await finish(sessions, made, now, OperationState.OK)
    async with sessions() as session:
        assert await backup_schedule.due(session, now + timedelta(hours=2), rules()) == []
    (proof,) = await unfinished(sessions, OperationKind.PROVE_BACKUP)
    assert proof.params == {"backup_id": str(newest)}
    await finish(sessions, proof, now, OperationState.ERROR, result={"damage": "Its SHA-256 is another one."})
    async with sessions.begin() as session:
        row = await session.get_one(Backup, newest)
        assert (row.proof_error, row.proven_at) == ("Its SHA-256 is another one.", None)
        row.checked_at = now + timedelta(minutes=1)  # by the clock of this test
    later = now + timedelta(minutes=2)
    await turn(sessions, later)
    (again,) = await unfinished(sessions, OperationKind.BACK_UP_CLIENT)
    await finish(sessions, again, later, OperationState.OK)
    async with sessions() as session:
        assert await backup_schedule.due(session, later + timedelta(hours=2), rules()) == []
        assert await backup_schedule.due_proofs(session, later, rules()) == []
        assert await backup_schedule.due_proofs(session, later + timedelta(hours=2), rules()) == [good]


async def test_a_proof_that_could_not_be_made_says_nothing_of_the_backup(
    sessions: SessionFactory, vault: Vault
) -> None:
    ((client_id,),) = await make_clients(sessions, vault, 1)
    backup_id = await keep_backup(sessions, client_id, FIRST)
    await turn(sessions, FIRST)
    (proof,) = await unfinished(sessions, OperationKind.PROVE_BACKUP)
    await finish(sessions, proof, FIRST, OperationState.ERROR, error_code="server_unreachable")
    async with sessions() as session:
        row = await session.get_one(Backup, backup_id)
        assert (row.proof_error, row.checked_at) == ("", None)
        assert await backup_schedule.due_proofs(session, FIRST + timedelta(minutes=59), rules()) == []
        assert await backup_schedule.due_proofs(session, FIRST + timedelta(minutes=61), rules()) == [backup_id]


# Removals


async def test_what_is_over_is_removed_where_it_lies_and_a_few_at_a_time(
    sessions: SessionFactory, vault: Vault
) -> None:
    (here,), (there,) = await make_clients(sessions, vault, 1, 1)
    async with sessions() as session:
        other = (await session.get_one(Client, there)).server_id
    over = {"reason": "command", "keep_until": FIRST}
    old = [await keep_backup(sessions, here, FIRST - timedelta(days=9 - n), server_id=other, **over) for n in range(5)]
    last = await keep_backup(sessions, here, FIRST, **over)
    now, removed, wanted = FIRST, [], rules(scheduled=False, prove_days=0)
    for size in (2, 2, 1, 0):
        now += timedelta(minutes=1)
        await turn(sessions, now, wanted)
        found = await unfinished(sessions, OperationKind.REMOVE_BACKUP)
        assert [(row.server_id, row.client_id, row.locks_client) for row in found] == [(other, here, False)] * size
        await turn(sessions, now, wanted)
        assert len(await unfinished(sessions, OperationKind.REMOVE_BACKUP)) == size
        for row in found:
            removed.append(UUID(row.params["backup_id"]))
            await finish(sessions, row, now, OperationState.OK)
    assert removed == old
    async with sessions() as session:
        assert list(await session.scalars(select(Backup.id))) == [last]


async def test_a_removal_that_failed_is_asked_again_after_an_hour(sessions: SessionFactory, vault: Vault) -> None:
    ((client_id,),) = await make_clients(sessions, vault, 1)
    old = await keep_backup(sessions, client_id, FIRST - timedelta(days=1), reason="command", keep_until=FIRST)
    await keep_backup(sessions, client_id, FIRST)
    wanted = rules(scheduled=False, prove_days=0)
    await turn(sessions, FIRST, wanted)
    (row,) = await unfinished(sessions, OperationKind.REMOVE_BACKUP)
    await finish(sessions, row, FIRST, OperationState.ERROR)
    async with sessions() as session:
        assert await session.get(Backup, old) is not None
        assert await backup_schedule.due_removals(session, FIRST + timedelta(minutes=59), wanted) == []
        found = await backup_schedule.due_removals(session, FIRST + timedelta(minutes=61), wanted)
    assert found == [(client_id, [old])]


@pytest.mark.parametrize("kind", [OperationKind.RESTORE_BACKUP, OperationKind.PROVE_BACKUP])
async def test_a_backup_that_something_works_with_is_not_removed(
    sessions: SessionFactory, vault: Vault, kind: OperationKind
) -> None:
    ((client_id,),) = await make_clients(sessions, vault, 1)
    old = await keep_backup(sessions, client_id, FIRST - timedelta(days=1), reason="command", keep_until=FIRST)
    await keep_backup(sessions, client_id, FIRST)
    async with sessions.begin() as session:
        server_id = (await session.get_one(Client, client_id)).server_id
        params = {"backup_id": str(old)}
        await make_operation(session, kind=kind, client_id=client_id, server_id=server_id, params=params)
    await turn(sessions, FIRST, rules(scheduled=False, prove_days=0))
    assert await unfinished(sessions, OperationKind.REMOVE_BACKUP) == []


async def test_the_row_of_a_deleted_client_goes_with_its_last_backup(sessions: SessionFactory, vault: Vault) -> None:
    ((client_id,),) = await make_clients(sessions, vault, 1, status=ClientStatus.ARCHIVED)
    await keep_backup(sessions, client_id, FIRST - timedelta(days=1))
    await keep_backup(sessions, client_id, FIRST, reason="final", keep_until=FIRST + timedelta(days=90))
    wanted = rules(scheduled=False, prove_days=0, daily=10_000)
    await turn(sessions, FIRST + timedelta(days=89), wanted)
    assert await unfinished(sessions, OperationKind.REMOVE_BACKUP) == []
    await turn(sessions, FIRST + timedelta(days=90), wanted)
    for left in (True, False):
        row = (await unfinished(sessions, OperationKind.REMOVE_BACKUP))[0]
        await finish(sessions, row, FIRST, OperationState.OK)
        async with sessions() as session:
            assert (await session.get(Client, client_id) is not None) is left


async def test_a_client_that_came_back_meanwhile_keeps_its_archive(sessions: SessionFactory, vault: Vault) -> None:
    ((client_id,),) = await make_clients(sessions, vault, 1, status=ClientStatus.ARCHIVED)
    final = await keep_backup(sessions, client_id, FIRST, reason="final", keep_until=FIRST)
    wanted = rules()
    async with sessions.begin() as session:
        assert await backup_schedule.due_removals(session, FIRST, wanted) == [(client_id, [final])]
        (await session.get_one(Client, client_id)).status = ClientStatus.RESTORING
    async with sessions.begin() as session:
        await backup_schedule.request_removals(session, client_id, [final], FIRST, wanted)
    assert await unfinished(sessions, OperationKind.REMOVE_BACKUP) == []
