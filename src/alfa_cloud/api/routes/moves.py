"""Clients that move to another server, and back."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from alfa_cloud.api.dependencies import CallerDep, IntId, OpenSessionDep, UuidId
from alfa_cloud.api.routes.clients import look_at_place
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.state import CommandDep, Services
from alfa_cloud.services import copies, images, losses, moves, servers

router = ApiRouter()

Answer = OperationDocument | PlanDocument
CopyName = Annotated[
    str,
    Query(
        pattern=r"^([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)?$",
        description="The copy's name; by default the client's with `-copy` behind.",
        examples=["hematology-test"],
    ),
]
ScrubCopy = Annotated[bool, Query(description="Take personal data out of the copy, by the app profile's command.")]
ConfirmLoss = Annotated[bool, Query(description="What was written since the move may be lost.")]


@command(router, "/clients/{client_id}/move_to/{server_id}", tags=["clients"], responses=COMMANDED)
async def move_client(
    client_id: IntId, server_id: IntId, open_session: OpenSessionDep, caller: CallerDep, ask: CommandDep
) -> Answer:
    """Move the client to another server with all its data. Its files are copied while it works; then the maintenance
    page stands while the database and the files' difference are brought over and compared. Where anything fails before
    the new server takes over, the client serves on from the old one. Minutes, by the size of its data.
    """
    place = await _look_at_target(ask.services, server_id)
    session = await open_session()
    request = moves.request_move(session, client_id, server_id, caller, busy_ports=place.busy_ports)
    return await ask.command(session, request)


@command(router, "/clients/{client_id}/copy_to/{server_id}", tags=["clients"], responses=COMMANDED)
async def copy_client(
    client_id: IntId,
    server_id: IntId,
    open_session: OpenSessionDep,
    caller: CallerDep,
    ask: CommandDep,
    name: CopyName = "",
    scrub: ScrubCopy = False,
) -> Answer:
    """Copy the client to a stage server, as a client of its own with the data of one moment: it sends no letters, and
    does no work by itself. The original notices nothing. `result.client_id` is the copy. Minutes, by the data's size.
    """
    place = await _look_at_target(ask.services, server_id)
    session = await open_session()
    request = copies.request_copy(
        session,
        client_id,
        server_id,
        caller,
        name=name,
        scrub=scrub,
        busy_ports=place.busy_ports,
        app=ask.services.profile.app,
        vault=ask.services.vault,
    )
    return await ask.command(session, request)


async def _look_at_target(services: Services, server_id: int) -> images.Place:
    """What a client would find on the server of a path.

    Raises:
        ServerNotFoundError: there is none.
        HostKeyChangedError: it is shut off.
    """
    async with services.sessions() as session:
        await servers.get_server(session, server_id)
    return await look_at_place(services, server_id)


@router.post("/operations/{operation_id}/undo", tags=["operations"], status_code=202, responses=COMMANDED)
async def undo_operation(
    operation_id: UuidId,
    open_session: OpenSessionDep,
    caller: CallerDep,
    ask: CommandDep,
    confirm_loss: ConfirmLoss = False,
) -> Answer:
    """Bring a moved client back to its former server, as it was when it left, while that is kept. Where it has written
    since, this says which tables differ, and needs `confirm_loss=true`; what it has now is dumped and kept.
    """
    if not confirm_loss:
        await losses.check(ask.services.sessions, ask.services.tools, operation_id)
    session = await open_session()
    return await ask.command(session, moves.request_undo(session, operation_id, caller))
