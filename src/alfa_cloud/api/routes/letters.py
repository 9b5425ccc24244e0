"""Letters to laboratories."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from alfa_cloud.api.dependencies import CallerDep, IntId, SessionDep
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.state import CommandDep
from alfa_cloud.services import letters
from alfa_cloud.specs import OperationKind

router = ApiRouter(tags=["clients"])

Answer = OperationDocument | PlanDocument
NewPassword = Annotated[
    bool, Query(description="Give the laboratory's administrator a new password, and send that. Some seconds.")
]


@command(router, "/clients/{client_id}/send_success", responses=COMMANDED)
async def send_success_letter(
    client_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep, new_password: NewPassword = False
) -> Answer:
    """Send the letter that the cloud is ready: address, login, and the first password while it is kept, which is
    until the letter has left; later it says where to set a new one. `dry_run` shows it, without the password.
    """
    mail, kind = ask.services.profile.mail, OperationKind.SEND_SUCCESS
    asked = letters.request(session, client_id, kind, caller, mail, new_password=new_password)
    return await ask.command(session, asked)


@command(router, "/clients/{client_id}/send_expire", responses=COMMANDED)
async def send_expire_letter(client_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Send the letter that the term ends soon, or has ended; a second. It is sent by itself too, days before."""
    mail, kind = ask.services.profile.mail, OperationKind.SEND_EXPIRE
    return await ask.command(session, letters.request(session, client_id, kind, caller, mail))
