"""Commands of clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime
from pydantic_core import PydanticCustomError

from alfa_cloud.api.dependencies import CallerDep, IntId, SessionDep
from alfa_cloud.api.jsonapi.body import Body, command_body
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.schemas.clients import OwnerPasswordChange, Title
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.state import CommandDep
from alfa_cloud.services import client_commands
from alfa_cloud.services.operations import Sealed
from alfa_cloud.specs import OperationKind

router = ApiRouter(tags=["clients"])

Answer = OperationDocument | PlanDocument
PageText = Annotated[
    Title,
    Query(max_length=500, description="What the page says beside its own words; one line.", examples=["До 18:00"]),
]
LONGEST: Final = timedelta(days=3652)


def _is_ahead(value: datetime) -> datetime:
    now = datetime.now(UTC)
    if not now < value < now + LONGEST:
        raise PydanticCustomError("invalid_value", "Give a moment from now on, within ten years")
    return value


EndsAt = Annotated[
    Annotated[AwareDatetime, AfterValidator(_is_ahead)] | None,
    Query(description="When it is thought to end, RFC 3339; visitors' programs are told. Within ten years."),
]
PasswordBody = Annotated[
    Body[Any], command_body(OwnerPasswordChange, example={"password": "correct horse battery staple"})
]


@command(router, "/clients/{client_id}/reboot", responses=COMMANDED)
async def reboot_client(client_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Restart the client's container; a few seconds."""
    kind = OperationKind.REBOOT_CLIENT
    return await ask.command(session, client_commands.request(session, client_id, kind, caller))


@command(router, "/clients/{client_id}/maintain_enable", responses=COMMANDED)
async def enable_client_maintenance(
    client_id: IntId,
    session: SessionDep,
    caller: CallerDep,
    ask: CommandDep,
    page_text: PageText = "",
    ends_at: EndsAt = None,
) -> Answer:
    """Show the maintenance page instead of the application; a second. The container goes on running behind it."""
    params = {"page_text": page_text, "ends_at": _moment(ends_at)}
    kind = OperationKind.ENABLE_MAINTENANCE
    return await ask.command(session, client_commands.request(session, client_id, kind, caller, params=params))


@command(router, "/clients/{client_id}/maintain_disable", responses=COMMANDED)
async def disable_client_maintenance(
    client_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep
) -> Answer:
    """Show the application again; a second."""
    kind = OperationKind.DISABLE_MAINTENANCE
    return await ask.command(session, client_commands.request(session, client_id, kind, caller))


@router.post("/clients/{client_id}/owner_password", status_code=202, responses=COMMANDED)
async def set_owner_password(
    client_id: IntId, sent: PasswordBody, session: SessionDep, caller: CallerDep, ask: CommandDep
) -> Answer:
    """Give the laboratory's administrator a new password; it replaces the one kept for the letter. Some seconds."""
    sealed = Sealed({"password": sent.value.password}, ask.services.vault)
    kind = OperationKind.SET_OWNER_PASSWORD
    return await ask.command(session, client_commands.request(session, client_id, kind, caller, sealed=sealed))


def _moment(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()
