"""What the calendar brings about: letters before the last day of use, blocking after it.

What is due is found in the rows at every turn, so that nothing is lost while no worker runs: of several reminders that
came due meanwhile only the nearest is sent, for the letter tells the days that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory
from alfa_cloud.models import Client, Operation, Reminder
from alfa_cloud.services import client_commands, expiry, letters
from alfa_cloud.services.operations import UNFINISHED, Caller
from alfa_cloud.specs import OperationKind, OperationState

LOCK: Final = 0x616C6667
EVERY_S: Final = 60.0
EXPIRED_DAYS: Final = 7
"""How long after the last day its letter may still leave: longer ago, everybody knows."""
LETTERS_AT_ONCE: Final = 8
"""So many wait while the mail server is down; the others are asked for when it takes letters again."""
ASK_AGAIN: Final = timedelta(hours=1)
"""After an attempt to block, to unblock or to send a letter that failed."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say.

    Args:
        zone: whose days count.
        reminder_days: how many days before the last one a letter is sent; none for no reminders.
        from_hour: the hour of the day, there, from which letters leave.
        expired_letter: whether a letter says that the term has ended.
        block: whether a client is blocked on the day after its last one.
        letters_at_once: how many letters may wait to be sent.
    """

    zone: ZoneInfo
    reminder_days: tuple[int, ...] = ()
    from_hour: int = 9
    expired_letter: bool = False
    block: bool = True
    letters_at_once: int = LETTERS_AT_ONCE


@dataclass(frozen=True, slots=True)
class Due:
    """A letter that is to leave.

    Args:
        failed: the last operation that was to send it, and did not.
    """

    client_id: int
    expire_date: date
    days: int
    failed: UUID | None

    def operation(self) -> Operation:
        """What sends it."""
        params: dict[str, Any] = {"expire_date": self.expire_date.isoformat(), "days": self.days}
        return letters.automatic(OperationKind.SEND_EXPIRE, self.client_id, params, retry_of=self.failed)


async def turn(sessions: SessionFactory, now: datetime, rules: Rules) -> None:
    """What is due by the calendar now has been asked for, once.

    Args:
        now: an aware moment.
    """
    if now.astimezone(rules.zone).hour >= rules.from_hour:
        async with sessions.begin() as session:
            await remind(session, now, rules)
    for client_id in await _in_disagreement(sessions, now, rules):
        async with sessions.begin() as session:
            client = await session.get(Client, client_id, with_for_update=True)
            if client is not None and client_commands.why_not(client, OperationKind.SET_EXPIRE_DATE) is None:
                await expiry.request(session, client, Caller())


# The day of a reminder is due from its morning on, where the last day was set by then: whoever sets one for next week
# needs no letter that told of it a month before. A letter that did not leave is due again while it is the nearest one.
DUE: Final = text(
    """
    WITH due AS (
        SELECT c.id, c.expire_date, nearest.days
          FROM clients AS c
         CROSS JOIN LATERAL (
                SELECT coalesce((SELECT max(e.created_at) FROM expire_dates AS e WHERE e.client_id = c.id),
                                c.created_at) AT TIME ZONE CAST(:zone AS text) AS at) AS chosen
         CROSS JOIN LATERAL (
                SELECT min(d) AS days FROM unnest(CAST(:days AS integer[])) AS d
                 WHERE c.expire_date - d BETWEEN CAST(chosen.at AS date) AND CAST(:today AS date)) AS nearest
         WHERE c.status IN ('active', 'expired') AND c.copy_of = ''
           AND c.expire_date BETWEEN CAST(:today AS date) AND CAST(:farthest AS date)
           AND nearest.days IS NOT NULL
        UNION ALL
        SELECT c.id, c.expire_date, 0
          FROM clients AS c
         WHERE CAST(:expired_letter AS boolean) AND c.blocked AND c.copy_of = '' AND c.status = 'expired'
           AND c.expire_date >= CAST(:not_before AS date) AND c.expire_date < CAST(:today AS date))
    SELECT due.id, due.expire_date, due.days, last.id AS failed
      FROM due
      LEFT JOIN LATERAL (
            SELECT min(r.days) AS days FROM reminders AS r
             WHERE r.client_id = due.id AND r.expire_date = due.expire_date AND r.days <= due.days) AS told ON true
      LEFT JOIN LATERAL (
            SELECT o.id, o.state, o.finished_at FROM operations AS o
             WHERE told.days = due.days AND o.client_id = due.id AND o.kind = 'send_expire'
               AND o.params = jsonb_build_object('expire_date', due.expire_date, 'days', due.days)
             ORDER BY o.created_at DESC, o.id DESC LIMIT 1) AS last ON true
     WHERE told.days IS NULL
        OR (last.state IN ('error', 'cancelled') AND last.finished_at <= CAST(:failed_before AS timestamptz))
     ORDER BY due.days, due.id
     LIMIT CAST(:limit AS integer)
    """
)


async def remind(session: AsyncSession, now: datetime, rules: Rules) -> int:
    """Each letter that is due is asked for, once for a client, a last day and a distance; how many there were."""
    waiting = await session.scalar(
        select(func.count())
        .select_from(Operation)
        .where(Operation.kind == OperationKind.SEND_EXPIRE, Operation.state.in_(UNFINISHED))
    )
    room = rules.letters_at_once - (waiting or 0)
    if room <= 0:
        return 0
    today = expiry.today(now, rules.zone)
    values = {
        "zone": rules.zone.key,
        "today": today,
        "days": list(rules.reminder_days),
        "farthest": today + timedelta(days=max(rules.reminder_days, default=0)),
        "expired_letter": rules.expired_letter,
        "not_before": today - timedelta(days=EXPIRED_DAYS),
        "failed_before": now - ASK_AGAIN,
        "limit": room,
    }
    return await _ask(session, [Due(*row) for row in await session.execute(DUE, values)])


async def _ask(session: AsyncSession, due: Sequence[Due]) -> int:
    """The operations of these letters, but for those that somebody else asked for meanwhile."""
    clients = select(Client.id).where(Client.id.in_({one.client_id for one in due}))
    await session.execute(clients.order_by(Client.id).with_for_update())
    first = await _told_first(session, [one for one in due if one.failed is None])
    again = {one.failed: one for one in due if one.failed is not None}
    retried = set(await session.scalars(select(Operation.retry_of).where(Operation.retry_of.in_(again))))
    asked = [*first, *(one.operation() for failed, one in again.items() if failed not in retried)]
    session.add_all(asked)
    await session.flush()
    return len(asked)


async def _told_first(session: AsyncSession, due: Sequence[Due]) -> list[Operation]:
    """Operations of those letters that nothing asked for yet; from now on something has."""
    if not due:
        return []
    wanted = {operation.id: operation for operation in (one.operation() for one in due)}
    rows = [
        {"client_id": one.client_id, "expire_date": one.expire_date, "days": one.days, "operation_id": operation_id}
        for operation_id, one in zip(wanted, due, strict=True)
    ]
    once = insert(Reminder).values(rows).on_conflict_do_nothing().returning(Reminder.operation_id)
    return [wanted[operation_id] for operation_id in await session.scalars(once)]


async def _in_disagreement(sessions: SessionFactory, now: datetime, rules: Rules) -> list[int]:
    """The clients whose row says otherwise than the calendar, and that nobody cares for now."""
    over: ColumnElement[bool] = func.coalesce(Client.expire_date < expiry.today(now, rules.zone), False)
    wrong = (Client.blocked & ~over) | (~Client.blocked & over) if rules.block else Client.blocked & ~over
    failed_just_now = (Operation.state != OperationState.OK) & (Operation.finished_at > now - ASK_AGAIN)
    cared_for = (
        select(Operation.id)
        .where(
            Operation.client_id == Client.id,
            Operation.kind == OperationKind.SET_EXPIRE_DATE,
            Operation.state.in_(UNFINISHED) | failed_just_now,
        )
        .exists()
    )
    query = select(Client.id).where(Client.status.in_(client_commands.ALIVE), wrong, ~cared_for).order_by(Client.id)
    async with sessions() as session:
        return list(await session.scalars(query))
