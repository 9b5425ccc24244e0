"""Which playbook each kind of operation runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.services.plans import (
    backups,
    clients,
    copies,
    demo,
    expiry,
    fleet,
    images,
    letters,
    moves,
    rollout,
    servers,
)
from alfa_cloud.services.plans.plan import Maker, Plan, Tools, Work
from alfa_cloud.specs import OperationKind

MAKERS: Final[Mapping[OperationKind, Maker]] = {
    **clients.MAKERS,
    **servers.MAKERS,
    **expiry.MAKERS,
    **letters.MAKERS,
    **demo.MAKERS,
    **images.MAKERS,
    **fleet.MAKERS,
    **rollout.MAKERS,
    **moves.MAKERS,
    **copies.MAKERS,
    **backups.MAKERS,
}


async def make_plan(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """The plan of an operation, from its subject's present attributes.

    Raises:
        NotFoundError: the subject is gone.
        HostKeyChangedError: the server is shut off until its key is pinned anew.
        ConflictError, InvalidError: what the rows say forbids it.
    """
    return await MAKERS[work.kind](session, work, tools)
