"""Back-ups by the clock: made every day, proven every week, and removed when their time is over."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from alfa_cloud.db import SessionFactory
from alfa_cloud.services import backup_schedule
from alfa_cloud.services.backup_schedule import Rules

LOCK: Final = 0x616C666B
EVERY_S: Final = 60.0


async def turn(sessions: SessionFactory, now: datetime, rules: Rules) -> None:
    """What is due now has been asked for, once.

    Args:
        now: an aware moment.
    """
    async with sessions() as session:
        clients = await backup_schedule.due(session, now, rules)
        removals = await backup_schedule.due_removals(session, now, rules)
    for client_id in clients:
        async with sessions.begin() as session:
            await backup_schedule.request_backup(session, client_id)
    for client_id, chosen in removals:
        async with sessions.begin() as session:
            await backup_schedule.request_removals(session, client_id, chosen, now, rules)
    async with sessions() as session:
        proofs = await backup_schedule.due_proofs(session, now, rules)
    for backup_id in proofs:
        async with sessions.begin() as session:
            await backup_schedule.request_proof(session, backup_id)
