"""Ends of operations that no worker writes."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.models import Operation
from alfa_cloud.services import operations, outcomes
from alfa_cloud.services.outcomes import Ended
from alfa_cloud.specs import OperationState


async def cancel_queued(session: AsyncSession, operation: Operation, message: str) -> None:
    """An operation that never started ends, with what that means for its subject; the caller holds its row locked."""
    await operations.cancel_queued(session, operation, message)
    await outcomes.apply(session, Ended.of(operation, OperationState.CANCELLED))
