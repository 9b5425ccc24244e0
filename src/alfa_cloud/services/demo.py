"""Demo data of clients: when it may come and go, and which dump is of the time before it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientStateError, FieldError
from alfa_cloud.models import Operation
from alfa_cloud.services import client_commands
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import OperationKind, OperationState

OK: Final[ColumnElement[bool]] = Operation.state == OperationState.OK


async def dump_before(session: AsyncSession, client_id: int) -> str:
    """The dump of the time before a client's demo data, of the first try to add it; empty where there is none."""
    of_client = (Operation.client_id == client_id,)
    taken_away = (
        select(Operation.created_at)
        .where(*of_client, Operation.kind == OperationKind.DISABLE_DEMO, OK)
        .order_by(Operation.created_at.desc())
        .limit(1)
    )
    since = await session.scalar(taken_away)
    dump = Operation.result["dump"].astext
    query = select(dump).where(*of_client, Operation.kind == OperationKind.ENABLE_DEMO, dump.is_not(None))
    if since is not None:
        query = query.where(Operation.created_at > since)
    return await session.scalar(query.order_by(Operation.created_at).limit(1)) or ""


async def request_disable(
    session: AsyncSession, client_id: int, caller: Caller, *, restore_backup: bool, confirm_loss: bool
) -> Operation:
    """The operation that takes a client's demo data away: by the inverse seeder, or by going back to the dump.

    Raises:
        ClientNotFoundError: there is none.
        ClientStateError: it is not allowed now, or there is no dump to go back to.
        FieldError: going back loses data, and nobody has confirmed that.
    """
    params: dict[str, Any] = {}
    if restore_backup:
        if not confirm_loss:
            detail = "What was written since the dump would be lost; say confirm_loss=true where that is wanted."
            raise FieldError("confirm_loss", detail, code="confirm_loss_needed")
        params = {"restore_backup": True, "dump": await dump_before(session, client_id)}
    kind = OperationKind.DISABLE_DEMO
    operation = await client_commands.request(session, client_id, kind, caller, params=params)
    if restore_backup and not params["dump"]:
        raise ClientStateError("There is no dump of the time before the demo data.")
    return operation
