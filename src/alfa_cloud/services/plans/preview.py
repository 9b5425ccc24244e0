"""What a command would do, without doing it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import RemoteError, StepFailedError
from alfa_cloud.models import Operation
from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.remote.host import Host
from alfa_cloud.services import fleet, images
from alfa_cloud.services.fleet_record import Record
from alfa_cloud.services.plans.make import make_plan
from alfa_cloud.services.plans.plan import Site, Tools, Work
from alfa_cloud.specs import FLEET_KINDS, OperationKind, OperationState

LOOK_BACK: Final = 20
LOOK_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a command would do.

    Args:
        steps: titles, in order; none where something blocks it.
        clients: the ids of those it touches.
        blocks: why it would not be taken, in words; empty where it would.
        took_before_s: the median of the last ones of its kind that ended well; None where there were none.
        extra: what a kind has to say beside that (space, candidates, a letter).
    """

    kind: OperationKind
    steps: tuple[str, ...] = ()
    clients: tuple[int, ...] = ()
    blocks: tuple[str, ...] = ()
    took_before_s: float | None = None
    extra: dict[str, object] = field(default_factory=dict)
    checks: tuple[Step, ...] = ()
    """The looks that its playbook begins with, and where."""
    site: Site | None = None


async def preview(session: AsyncSession, operation: Operation, tools: Tools) -> Preview:
    """What an operation would do; the caller takes it back afterwards.

    Raises:
        AlfaCloudError: its plan cannot be made.
    """
    kind = OperationKind(operation.kind)
    if kind in FLEET_KINDS:
        return await _fleet_preview(session, operation, tools)
    plan = await make_plan(session, Work.of(operation, tools.vault), tools)
    return Preview(
        kind,
        steps=tuple(str(step) for step in plan.playbook.steps),
        clients=() if operation.client_id is None else (operation.client_id,),
        took_before_s=await took_before(session, kind, operation.server_id),
        extra=dict(plan.extra),
        checks=tuple(takewhile(lambda step: step.looks_only, plan.playbook.steps)),
        site=plan.site,
    )


async def look(found: Preview, host: Host) -> tuple[str, ...]:
    """What the playbook's first checks have against it now, in words; bounded, and nothing is changed."""
    blocks = []
    try:
        async with asyncio.timeout(LOOK_S):
            for check in found.checks:
                try:
                    await check.is_satisfied(host)
                except StepFailedError as error:
                    blocks.append(error.detail)
    except (RemoteError, TimeoutError) as error:
        words = error.detail if isinstance(error, RemoteError) else f"no answer within {LOOK_S:g} s"
        blocks.append(f"The server cannot be asked: {words}")
    return tuple(blocks)


async def _fleet_preview(session: AsyncSession, operation: Operation, tools: Tools) -> Preview:
    """What a fleet command would do: its targets in their order, and why some of them would not be taken."""
    kind = OperationKind(operation.kind)
    rows = Record(operation).rows
    extra: dict[str, object] = {"blocks": await fleet.blocks(session, operation)}
    extra["max_parallel"] = (await fleet.course_of(session, operation, rows)).max_parallel
    if kind is OperationKind.PRUNE:
        servers = {int(row.server_id) for row in rows}
        extra["would_go"] = await images.would_go(session, servers, tools.profile.app.image)
    return Preview(
        kind,
        steps=tuple(row.name for row in rows),
        clients=tuple(int(row.client_id) for row in rows if row.client_id),
        took_before_s=await took_before(session, kind, operation.server_id),
        extra=extra,
    )


async def took_before(session: AsyncSession, kind: OperationKind, server_id: int | None) -> float | None:
    """The median time, in seconds, of the last operations of a kind on a server that ended well."""
    seconds = func.extract("epoch", Operation.finished_at - Operation.started_at)
    last = (
        select(seconds.label("seconds"))
        .where(
            Operation.kind == kind,
            Operation.state == OperationState.OK,
            Operation.server_id.is_not_distinct_from(server_id),
        )
        .order_by(Operation.id.desc())
        .limit(LOOK_BACK)
        .subquery()
    )
    median = await session.scalar(select(func.percentile_cont(0.5).within_group(last.c.seconds)))
    return None if median is None else round(float(median), 1)
