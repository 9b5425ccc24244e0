"""Demo data of clients."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from alfa_cloud.api.dependencies import CallerDep, IntId, SessionDep
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.state import CommandDep
from alfa_cloud.services import client_commands, demo
from alfa_cloud.specs import OperationKind

router = ApiRouter(tags=["clients"])

Answer = OperationDocument | PlanDocument
RestoreBackup = Annotated[
    bool, Query(description="Instead of the inverse seeder: bring back the dump that was made before the demo data.")
]
ConfirmLoss = Annotated[bool, Query(description="Needed for that: what was written since the dump is lost.")]


@command(router, "/clients/{client_id}/demo_enable", responses=COMMANDED)
async def enable_demo(client_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Add the demo data, after a dump that is kept; seconds, or as long as the dump takes. Twice is once."""
    kind = OperationKind.ENABLE_DEMO
    return await ask.command(session, client_commands.request(session, client_id, kind, caller))


@command(router, "/clients/{client_id}/demo_disable", responses=COMMANDED)
async def disable_demo(
    client_id: IntId,
    session: SessionDep,
    caller: CallerDep,
    ask: CommandDep,
    restore_backup: RestoreBackup = False,
    confirm_loss: ConfirmLoss = False,
) -> Answer:
    """Take the demo data away, by the application's inverse seeder; some seconds. Where that fails nothing is restored
    by itself: `restore_backup` does, behind the maintenance page, after a fresh dump that is kept.
    """
    asked = demo.request_disable(session, client_id, caller, restore_backup=restore_backup, confirm_loss=confirm_loss)
    return await ask.command(session, asked)
