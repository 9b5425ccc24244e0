"""Commands on all clients of a server, and on all servers."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from alfa_cloud.api.dependencies import CallerDep, IntId, OpenSessionDep, SessionDep
from alfa_cloud.api.jsonapi.query import Listing, chooses
from alfa_cloud.api.routes.client_commands import EndsAt, PageText
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.schemas.servers import NO_SUCH
from alfa_cloud.api.state import CommandDep, Services
from alfa_cloud.errors import FieldError
from alfa_cloud.remote.docker import Image
from alfa_cloud.services import fleet_commands, fleet_images, images, servers
from alfa_cloud.services.fleet_course import Limits
from alfa_cloud.services.listing import MAX_ID
from alfa_cloud.specs import OperationKind

router = ApiRouter(tags=["servers"])

Answer = OperationDocument | PlanDocument
RunMigrate = Annotated[bool, Query(description="Migrate each client's database too, as one operation with the rest.")]


async def read_limits(
    max_parallel: Annotated[
        int | None,
        Query(ge=1, le=64, description="At once on each server; the server's own number where none is given."),
    ] = None,
    canary_count: Annotated[
        int, Query(ge=0, le=1000, description="The first so many go alone; where one fails, the rest never start.")
    ] = 0,
    max_failures: Annotated[
        int | None, Query(ge=0, le=1000, description="Where more than so many fail, nothing else is started.")
    ] = None,
) -> Limits:
    """How bold a fleet command is."""
    return Limits(max_parallel, canary_count, max_failures)


LimitsDep = Annotated[Limits, Depends(read_limits)]
Chosen = Annotated[Listing, chooses(*fleet_commands.CLIENT_FILTERS)]


@command(router, "/server/{server_id}/switch_all", responses=COMMANDED)
async def switch_all(
    server_id: IntId,
    open_session: OpenSessionDep,
    caller: CallerDep,
    ask: CommandDep,
    limits: LimitsDep,
    chosen: Chosen,
    image_name: Annotated[str | None, Query(max_length=300, description="A tag, REPOSITORY:TAG, or a channel.")] = None,
    run_migrate: RunMigrate = False,
) -> Answer:
    """Switch every client of the server to another image; about ten seconds a client, four at once by default.

    Clients are served all along, as with `switch` of one. Without `image_name`: 422, with the images there are.
    """
    found = await _images(ask.services, server_id)
    if image_name is None:
        names = ", ".join(image.tag.rpartition(":")[2] for image in found[:20])
        raise FieldError("image_name", f"Say which image. There are: {names or 'none; build one first'}.")
    session = await open_session()
    image = await fleet_images.find(session, image_name, server_id, found, ask.services.repository, field="image_name")
    child = {"image": image.wish, "image_ref": image.reference, "digest": image.digest, "run_migrate": run_migrate}
    kind = OperationKind.SWITCH_ALL
    return await ask.command(
        session,
        fleet_commands.on_clients(
            session, server_id, kind, caller, limits=limits, filters=chosen.query.filters, child=child
        ),
    )


@command(router, "/server/{server_id}/migrate_all", responses=COMMANDED)
async def migrate_all(
    server_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep, limits: LimitsDep, chosen: Chosen
) -> Answer:
    """Migrate the database of every client of the server, each behind its maintenance page; seconds to minutes each."""
    kind = OperationKind.MIGRATE_ALL
    return await ask.command(
        session,
        fleet_commands.on_clients(session, server_id, kind, caller, limits=limits, filters=chosen.query.filters),
    )


@command(router, "/server/{server_id}/deploy", responses=COMMANDED)
async def deploy(
    server_id: IntId,
    open_session: OpenSessionDep,
    caller: CallerDep,
    ask: CommandDep,
    limits: LimitsDep,
    restart_all: Annotated[bool, Query(description="Restart every client, not only those that changed.")] = False,
    run_migrate: RunMigrate = False,
) -> Answer:
    """Write all configuration of the server and its clients anew, and restart what changed; one client after the other.

    The server itself goes first; where that fails, no client is touched. A client that follows a channel gets its
    newest image. `result.migration_pending` names those that need a migration now.
    """
    found = await _images(ask.services, server_id)
    session = await open_session()
    return await ask.command(
        session,
        fleet_commands.deploy(
            session,
            server_id,
            caller,
            limits=limits,
            images=found,
            repository=ask.services.repository,
            restart_all=restart_all,
            run_migrate=run_migrate,
        ),
    )


@command(router, "/servers/{server_id}/maintain_enable", responses=COMMANDED)
async def enable_server_maintenance(
    server_id: IntId,
    session: SessionDep,
    caller: CallerDep,
    ask: CommandDep,
    limits: LimitsDep,
    page_text: PageText = "",
    ends_at: EndsAt = None,
) -> Answer:
    """Show the maintenance page for every client of the server; a second each."""
    child = {"page_text": page_text, "ends_at": ends_at.isoformat() if ends_at else None}
    kind = OperationKind.ENABLE_MAINTENANCE_ALL
    return await ask.command(
        session, fleet_commands.on_clients(session, server_id, kind, caller, limits=limits, child=child)
    )


@command(router, "/servers/{server_id}/maintain_disable", responses=COMMANDED)
async def disable_server_maintenance(
    server_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep, limits: LimitsDep
) -> Answer:
    """Show the application of every client of the server again; a second each."""
    kind = OperationKind.DISABLE_MAINTENANCE_ALL
    return await ask.command(session, fleet_commands.on_clients(session, server_id, kind, caller, limits=limits))


@command(router, "/containers/prune", tags=["images"], responses={**COMMANDED, **NO_SUCH})
async def prune_images(
    session: SessionDep,
    caller: CallerDep,
    ask: CommandDep,
    limits: LimitsDep,
    server_id: Annotated[int | None, Query(ge=1, le=MAX_ID, description="Only this server.", examples=[1])] = None,
) -> Answer:
    """Remove images that nobody needs from all servers, or from one; seconds to a minute each.

    What a client runs or ran before its last switch, what an unfinished operation names, and the two newest of each
    branch stay. The rows of `result` tell what was removed; the `extra.would_go` of a plan what
    would be, as far as each server's last look knows.
    """
    return await ask.command(session, fleet_commands.prune(session, server_id, caller, limits=limits))


async def _images(services: Services, server_id: int) -> list[Image]:
    """The images on a server, the newest first; those of the last look where it does not answer."""
    async with services.sessions() as session:
        server = await servers.get_server(session, server_id)
    servers.check_usable(server)
    async with servers.shutting_off(services.sessions, server.address):
        return list((await images.look_at_place(services.pool, server, services.repository)).images)
