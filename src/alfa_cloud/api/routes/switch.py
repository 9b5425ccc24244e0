"""Commands that replace a client's image, or migrate its database."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from alfa_cloud.api.dependencies import CallerDep, IntId, OpenSessionDep, SessionDep
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.state import CommandDep, Services
from alfa_cloud.models import Operation, Server
from alfa_cloud.services import client_commands, clients, fleet_images, images, servers
from alfa_cloud.services.fleet_images import Found
from alfa_cloud.services.images import Place
from alfa_cloud.specs import OperationKind

router = ApiRouter(tags=["clients"])

Answer = OperationDocument | PlanDocument
ImageName = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,170}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$",
        description="A tag, REPOSITORY:TAG, or a channel (dev, master), which means its newest image of the fleet.",
        examples=["1.4.2-master"],
    ),
]
RunMigrate = Annotated[
    bool,
    Query(description="Migrate the database too, under the maintenance page; on failure both are as they were."),
]


@command(router, "/clients/{client_id}/switch/{image_name}", responses=COMMANDED)
async def switch_client(
    client_id: IntId,
    image_name: ImageName,
    open_session: OpenSessionDep,
    caller: CallerDep,
    ask: CommandDep,
    run_migrate: RunMigrate = False,
) -> Answer:
    """Run the client from another image, without a failed request: the new container starts beside the old one, which
    serves until the new one is healthy, and on where it does not become so. Some ten seconds; longer where the image
    must be brought from another server.
    """
    place, server_id = await _place(ask.services, client_id)
    session = await open_session()
    repository = ask.services.repository
    found = await fleet_images.find(session, image_name, server_id, place.images, repository, field="image_name")

    async def request() -> Operation:
        params = _params(found, run_migrate=run_migrate)
        kind = OperationKind.SWITCH_CLIENT
        operation = await client_commands.request(session, client_id, kind, caller, params=params)
        client = await clients.get_client(session, client_id)
        await clients.reserve_spare_port(session, client, place.busy_ports)
        return operation

    return await ask.command(session, request())


@command(router, "/clients/{client_id}/migrate", responses=COMMANDED)
async def migrate_client(client_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Run the application's migrations, under the maintenance page; on failure the database is as before. Some ten
    seconds, and the time that a dump of the database takes.
    """
    kind = OperationKind.MIGRATE_CLIENT
    return await ask.command(session, client_commands.request(session, client_id, kind, caller))


def _params(found: Found, *, run_migrate: bool) -> dict[str, object]:
    return {
        "image": found.wish,
        "image_ref": found.reference,
        "digest": found.digest,
        "run_migrate": run_migrate,
    }


async def _place(services: Services, client_id: int) -> tuple[Place, int]:
    """What is on the client's server now, or was at the last look; and the server's id.

    Raises:
        ClientNotFoundError: there is no such client.
        HostKeyChangedError: its server is shut off.
    """
    async with services.sessions() as session:
        client = await clients.get_client(session, client_id)
        server = await session.get_one(Server, client.server_id)
    servers.check_usable(server)
    async with servers.shutting_off(services.sessions, server.address):
        return await images.look_at_place(services.pool, server, services.repository), server.id
