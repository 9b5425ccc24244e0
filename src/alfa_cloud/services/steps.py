"""The steps of an operation, as the worker that holds it records them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from sqlalchemy import Table, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.models import OperationStep
from alfa_cloud.services.operations import Claim
from alfa_cloud.specs import StepState

TABLE: Final = cast("Table", OperationStep.__table__)
MAX_TITLE: Final = 200


async def plan_steps(session: AsyncSession, claim: Claim, steps: Sequence[tuple[str, str]]) -> None:
    """List the steps that will be done, as (name, title); those of an earlier attempt stay as they are."""
    rows = [
        {"operation_id": claim.operation_id, "position": position, "name": name, "title": title[:MAX_TITLE]}
        for position, (name, title) in enumerate(steps)
    ]
    if rows:
        await session.execute(insert(OperationStep).values(rows).on_conflict_do_nothing())


async def last_touched(session: AsyncSession, claim: Claim) -> int:
    """The position of the last step that any attempt has begun; -1 where none was."""
    query = select(func.max(OperationStep.position)).where(
        OperationStep.operation_id == claim.operation_id, OperationStep.state != StepState.PENDING
    )
    found = await session.scalar(query)
    return -1 if found is None else found


async def write_step(session: AsyncSession, claim: Claim, position: int, state: StepState) -> None:
    """Record where a step stands."""
    values: dict[str, Any] = {"state": state}
    if state is StepState.RUNNING:
        values |= {"started_at": func.coalesce(TABLE.c.started_at, func.clock_timestamp()), "finished_at": None}
    elif state is not StepState.WAITING:
        values["finished_at"] = func.clock_timestamp()
    await session.execute(
        update(TABLE).where(TABLE.c.operation_id == claim.operation_id, TABLE.c.position == position).values(**values)
    )
