"""Back-ups by the clock: which are due, which have outlived their time, which are to be proven; and what became of it.

Everything is found in the rows, so that nothing is missed while no worker runs, and nothing is done twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.models import Backup, Client, Operation
from alfa_cloud.profile import Keeping
from alfa_cloud.services import client_commands, operations
from alfa_cloud.services.backups import DEADLINE_S, FINAL, SCHEDULE
from alfa_cloud.services.operations import UNFINISHED, Caller
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState

AT_ONCE: Final = 2
"""Unfinished ones on a server, of back-ups and of removals: others need its slots too."""
PROOFS_AT_ONCE: Final = 1
ASK_AGAIN: Final = timedelta(hours=1)
"""After one that failed."""
LIVING: Final = (ClientStatus.ACTIVE, ClientStatus.EXPIRED)
MAX_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say.

    Args:
        zone: whose days count.
    """

    keeping: Keeping
    zone: ZoneInfo


def last_hour(now: datetime, rules: Rules) -> datetime:
    """The moment since which the day's back-ups are due: the last one, by now, of the hour that the settings say."""
    now = now.astimezone(UTC)
    day = now.astimezone(rules.zone).date()
    today = datetime.combine(day, time(rules.keeping.hour), rules.zone).astimezone(UTC)
    if today <= now:
        return today
    return datetime.combine(day - timedelta(days=1), time(rules.keeping.hour), rules.zone).astimezone(UTC)


def outlived(rows: Collection[Backup], now: datetime, rules: Rules, *, archived: bool) -> list[Backup]:
    """The back-ups of one client whose time is over, the oldest first.

    A client that lives never loses its last good one. With the archive of a deleted client everything of it goes.

    Args:
        rows: all of the client.
        archived: whether it is deleted, and only its archive is left.
    """
    oldest_first = sorted(rows, key=lambda row: (row.created_at, row.id))
    if archived and not any(row.reason == FINAL and _has_time(row, now) for row in rows):
        return oldest_first
    kept = _kept_by_rule([row for row in oldest_first if row.reason == SCHEDULE], now, rules)
    kept |= {row.id for row in rows if row.reason != SCHEDULE and _has_time(row, now)}
    if oldest_first and not archived:
        kept.add(([row for row in oldest_first if not row.proof_error] or oldest_first)[-1].id)
    return [row for row in oldest_first if row.id not in kept]


def _has_time(row: Backup, now: datetime) -> bool:
    return row.keep_until is None or row.keep_until > now


def _kept_by_rule(oldest_first: Sequence[Backup], now: datetime, rules: Rules) -> set[UUID]:
    """The newest good one of each of the last days, weeks and months; one that is damaged is shown for as many days."""
    keeping, today = rules.keeping, now.astimezone(rules.zone).date()
    days = {row.id: row.created_at.astimezone(rules.zone).date() for row in oldest_first}
    kept = {row.id for row in oldest_first if row.proof_error and _day(days[row.id]) > _day(today) - keeping.daily}
    for count, number in ((keeping.daily, _day), (keeping.weekly, _week), (keeping.monthly, _month)):
        newest = {number(days[row.id]): row.id for row in oldest_first if not row.proof_error}
        kept |= {row_id for period, row_id in newest.items() if period > number(today) - count}
    return kept


def _day(day: date) -> int:
    return day.toordinal()


def _week(day: date) -> int:
    """ISO weeks begin on Mondays, as the first day of all did."""
    return (day.toordinal() - 1) // 7


def _month(day: date) -> int:
    return day.year * 12 + day.month


async def due(session: AsyncSession, now: datetime, rules: Rules) -> list[int]:
    """The clients whose back-up of the day is to be asked for now, those with the oldest one first.

    One that is found damaged is followed by another at once.
    """
    if not rules.keeping.scheduled:
        return []
    hour = last_hour(now, rules)
    damaged = select(func.max(Backup.checked_at)).where(Backup.client_id == Client.id, Backup.proof_error != "")
    since = func.greatest(hour, damaged.correlate(Client).scalar_subquery())
    made = (Operation.state == OperationState.OK) & (Operation.created_at >= since)
    query = (
        select(Client.id, Client.server_id)
        .where(
            Client.status.in_(LIVING),
            func.coalesce(Client.activated_at, Client.created_at) <= hour,
            ~_any(OperationKind.BACK_UP_CLIENT, _scheduled(), made | _cared_for(now)),
        )
        .order_by(Client.last_backup_at.asc().nulls_first(), Client.id)
    )
    taken = await _unfinished(session, OperationKind.BACK_UP_CLIENT, _scheduled())
    rows = [(row.id, row.server_id) for row in await session.execute(query)]
    return _with_room(rows, taken, AT_ONCE)


async def request_backup(session: AsyncSession, client_id: int) -> None:
    """A client's back-up of the day has been asked for, where it can be made."""
    client = await session.get(Client, client_id, with_for_update=True)
    if client is not None and client.status in LIVING:
        params = {"reason": SCHEDULE}
        await client_commands.request(session, client.id, OperationKind.BACK_UP_CLIENT, Caller(), params=params)


async def due_proofs(session: AsyncSession, now: datetime, rules: Rules) -> list[UUID]:
    """The back-ups that are to be proven now: of each client the newest that is not known as damaged."""
    if not rules.keeping.prove_days:
        return []
    newest = (
        select(Backup.id, Backup.client_id, Backup.server_id)
        .ext(distinct_on(Backup.client_id))
        .where(Backup.proof_error == "")
        .order_by(Backup.client_id, Backup.created_at.desc(), Backup.id.desc())
        .subquery()
    )
    before = now - timedelta(days=rules.keeping.prove_days)
    query = (
        select(newest.c.id, newest.c.server_id)
        .join(Client, Client.id == newest.c.client_id)
        .where(
            Client.status.in_((*LIVING, ClientStatus.ARCHIVED)),
            or_(Client.last_proven_at.is_(None), Client.last_proven_at <= before),
            ~_any(OperationKind.PROVE_BACKUP, _cared_for(now)),
            ~_any(OperationKind.REMOVE_BACKUP, Operation.state.in_(UNFINISHED)),
        )
        .order_by(Client.last_proven_at.asc().nulls_first(), Client.id)
    )
    taken = await _unfinished(session, OperationKind.PROVE_BACKUP)
    rows = [(row.id, row.server_id) for row in await session.execute(query)]
    return _with_room(rows, taken, PROOFS_AT_ONCE)


async def request_proof(session: AsyncSession, backup_id: UUID) -> None:
    """A proof of a back-up has been asked for, where it is still there."""
    backup = await session.get(Backup, backup_id)
    if backup is not None:
        await session.get(Client, backup.client_id, with_for_update=True)
        await _request(session, OperationKind.PROVE_BACKUP, backup)


async def due_removals(session: AsyncSession, now: datetime, rules: Rules) -> list[tuple[int, list[UUID]]]:
    """The back-ups that are to go now, by client; none that an operation works with, and a few on each server."""
    taken = await _unfinished(session, OperationKind.REMOVE_BACKUP)
    busy = await _busy(session, now)
    found = []
    for client_id, (archived, rows) in (await _backups(session)).items():
        over = [(row.id, row.server_id) for row in outlived(rows, now, rules, archived=archived) if row.id not in busy]
        if chosen := _with_room(over, taken, AT_ONCE):
            found.append((client_id, chosen))
    return found


async def request_removals(
    session: AsyncSession, client_id: int, chosen: Collection[UUID], now: datetime, rules: Rules
) -> None:
    """The removal of these back-ups has been asked for, where their time is over still."""
    client = await session.get(Client, client_id, with_for_update=True)
    if client is None:
        return
    busy = await _busy(session, now)
    for archived, rows in (await _backups(session, client_id)).values():
        for row in outlived(rows, now, rules, archived=archived):
            if row.id in chosen and row.id not in busy:
                await _request(session, OperationKind.REMOVE_BACKUP, row)


async def _request(session: AsyncSession, kind: OperationKind, backup: Backup) -> None:
    """An operation on a back-up, where it lies; it waits for no other operation of the client, and none for it."""
    await operations.request(
        session,
        kind,
        Caller(),
        client_id=backup.client_id,
        server_id=backup.server_id,
        params={"backup_id": str(backup.id)},
        locks_client=False,
        deadline_s=DEADLINE_S,
    )


async def _backups(session: AsyncSession, client_id: int | None = None) -> dict[int, tuple[bool, list[Backup]]]:
    """The back-ups of clients at rest, and whether each of these is archived."""
    query = (
        select(Backup, Client.status)
        .join(Client, Client.id == Backup.client_id)
        .where(Client.status.in_((*LIVING, ClientStatus.ARCHIVED)))
        .order_by(Backup.client_id)
    )
    if client_id is not None:
        query = query.where(Client.id == client_id)
    found: dict[int, tuple[bool, list[Backup]]] = {}
    for row, status in await session.execute(query):
        found.setdefault(row.client_id, (status == ClientStatus.ARCHIVED, []))[1].append(row)
    return found


async def _busy(session: AsyncSession, now: datetime) -> set[UUID]:
    """The back-ups that an operation works with, or could not be removed a moment ago."""
    just_now = (Operation.kind == OperationKind.REMOVE_BACKUP) & (Operation.finished_at > now - ASK_AGAIN)
    query = select(Operation.params["backup_id"].astext).where(
        Operation.params.has_key("backup_id"), or_(Operation.state.in_(UNFINISHED), just_now)
    )
    return {UUID(text) for text in await session.scalars(query)}


async def _unfinished(session: AsyncSession, kind: OperationKind, *which: ColumnElement[bool]) -> Counter[int]:
    """How many operations of a kind wait or run on each server."""
    query = select(Operation.server_id, func.count()).where(
        Operation.kind == kind, Operation.state.in_(UNFINISHED), *which
    )
    rows = await session.execute(query.group_by(Operation.server_id))
    return Counter({server_id: count for server_id, count in rows if server_id is not None})


def _any(kind: OperationKind, *which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether the client has an operation of that kind."""
    query = select(Operation.id).where(Operation.client_id == Client.id, Operation.kind == kind, *which)
    return query.correlate(Client).exists()


def _scheduled() -> ColumnElement[bool]:
    return Operation.params.contains({"reason": SCHEDULE})


def _cared_for(now: datetime) -> ColumnElement[bool]:
    """An operation that is under way, or failed a moment ago."""
    failed = Operation.state.in_((OperationState.ERROR, OperationState.CANCELLED))
    return Operation.state.in_(UNFINISHED) | (failed & (Operation.finished_at > now - ASK_AGAIN))


def _with_room(rows: Sequence[tuple[Any, int]], taken: Counter[int], at_once: int) -> list[Any]:
    """Those that their servers have room for, in their order; these are taken then."""
    chosen = []
    for key, server_id in rows:
        if taken[server_id] < at_once:
            taken[server_id] += 1
            chosen.append(key)
    return chosen


async def removed(session: AsyncSession, client_id: int, backup_id: UUID) -> None:
    """A back-up is gone; with the last one of a deleted client its row goes too."""
    client = await session.get(Client, client_id, with_for_update=True, populate_existing=True)
    await session.execute(delete(Backup).where(Backup.id == backup_id))
    if client is None or client.status != ClientStatus.ARCHIVED:
        return
    if await session.scalar(select(Backup.id).where(Backup.client_id == client_id).limit(1)) is None:
        await session.delete(client)


async def proven(session: AsyncSession, client_id: int, backup_id: UUID, told: Mapping[str, Any], *, ok: bool) -> None:
    """What a proof found is known; nothing where it could not be brought to its end.

    Args:
        told: what its steps reported; `damage` where it is not what it was.
    """
    now = await operations.database_now(session)
    which = update(Backup).where(Backup.id == backup_id)
    if ok:
        await session.execute(which.values(checked_at=now, proven_at=now, proof_error=""))
        await session.execute(update(Client).where(Client.id == client_id).values(last_proven_at=now))
    elif told.get("damage"):
        await session.execute(which.values(checked_at=now, proof_error=str(told["damage"])[:MAX_ERROR]))
