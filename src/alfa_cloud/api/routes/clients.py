"""Clients: the laboratories' clouds."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from alfa_cloud.api.after import Ending
from alfa_cloud.api.dependencies import CallerDep, IntId, OpenSessionDep, SessionDep
from alfa_cloud.api.jsonapi.body import Body, body
from alfa_cloud.api.jsonapi.documents import Collection, Document, absent
from alfa_cloud.api.jsonapi.query import Listing, includes, lists
from alfa_cloud.api.routes.operations import AfterSeq, FollowLog, LogMedia, LogWaitS, answer_log
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.schemas.clients import (
    CLIENT_EXAMPLE,
    ClientCreate,
    ClientResource,
    ClientUpdate,
    client_resource,
)
from alfa_cloud.api.schemas.operations import (
    LogDocument,
    OperationDocument,
    OperationResource,
    operation_resource,
)
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.schemas.servers import KEY_CHANGED, NO_SUCH, ServerResource, server_resource
from alfa_cloud.api.state import AskDep, CommandDep, Services, ServicesDep
from alfa_cloud.errors import FieldError
from alfa_cloud.models import Client, Operation, Server
from alfa_cloud.services import backups, clients, images, operation_views, servers

router = ApiRouter(tags=["clients"])

INCLUDES = ("server", "operation")
Included = list[ServerResource | OperationResource]


class ClientDocument(Document[ClientResource]):
    """One client."""

    included: Included | None = absent("What `include` named.")


class ClientCollection(Collection[ClientResource]):
    """A page of clients."""

    included: Included | None = absent("What `include` named.")


ClientListing = Annotated[
    Listing, lists(filters=clients.FILTERS, sorts=tuple(clients.SORTS), sort="name", include=INCLUDES)
]
KeepArchive = Annotated[bool, Query(description="Whether an archive is made first.")]
ConfirmName = Annotated[
    str,
    Query(max_length=40, description="The client's name: needed where no archive is made.", examples=["hematology"]),
]
ClientIncludes = Annotated[frozenset[str], includes(*INCLUDES)]
ClientBody = Annotated[Body[Any], body("clients", ClientCreate, update=ClientUpdate, example=CLIENT_EXAMPLE)]
ClientChange = Annotated[
    Body[Any], body("clients", ClientUpdate, path_id="client_id", example={"title": "Лаборатория №2"})
]


async def included_in(session: AsyncSession, rows: list[Client], include: frozenset[str]) -> Included | None:
    """The resources that `include` names, each once."""
    found: Included = []
    if "server" in include:
        ids = sorted({row.server_id for row in rows})
        counts = await servers.count_clients(session, ids)
        last = await servers.last_preparations(session, ids)
        for server_id in ids:
            server = await session.get_one(Server, server_id)
            operation_id = last[server_id].id if server_id in last else None
            found.append(server_resource(server, counts.get(server_id, 0), operation_id))
    if "operation" in include:
        wanted = [await session.get(Operation, row.operation_id) for row in rows if row.operation_id]
        found += map(operation_resource, await operation_views.views(session, [one for one in wanted if one]))
    return found if include else None


async def client_document(session: AsyncSession, row: Client, include: frozenset[str] = frozenset()) -> ClientDocument:
    """The document of one client."""
    server = await session.get_one(Server, row.server_id)
    return ClientDocument.of(client_resource(row, server), included=await included_in(session, [row], include))


@router.get("/clients")
async def list_clients(session: SessionDep, listing: ClientListing) -> ClientCollection:
    """Clients with every detail; archived ones only where `filter[status]` names them."""
    page = await clients.list_clients(session, listing.query)
    found = {row.id: row for row in await clients.servers_of(session, page.rows)}
    resources = [client_resource(row, found[row.server_id]) for row in page.rows]
    extra = await included_in(session, page.rows, listing.include)
    return ClientCollection.of(resources, listing, page.total, included=extra)


@router.get("/clients/{client_id}")
async def read_client(client_id: IntId, session: SessionDep, include: ClientIncludes) -> ClientDocument:
    """One client."""
    return await client_document(session, await clients.get_client(session, client_id), include)


@router.post("/clients/", status_code=201, responses={200: {"model": ClientDocument}, **NO_SUCH, **KEY_CHANGED})
async def create_or_update_client(
    sent: ClientBody,
    response: Response,
    open_session: OpenSessionDep,
    services: ServicesDep,
    caller: CallerDep,
    ask: AskDep,
) -> ClientDocument:
    """Create a client, or update the one whose id is sent. Checks come first; then its id at once, while the creation
    runs: follow `/clients/{id}/create_log`. About ten seconds.
    """
    if sent.id is not None:
        response.status_code = 200
        return await change_client(sent.int_id, sent.value, await open_session(), caller, ask)
    values = sent.value.model_dump(exclude={"owner_password"})
    values["max_resources"] = values["max_resources"] or {}
    place = await look_at_place(services, values["server_id"])
    session = await open_session()
    row, operation = await clients.create_client(
        session,
        values,
        images=place.images,
        busy_ports=set(place.busy_ports),
        repository=services.repository,
        owner_password=sent.value.owner_password,
        vault=services.vault,
        caller=caller,
    )
    document = await client_document(session, row)
    response.headers["Location"] = document.data.own_link
    ask.follow(operation.id, lambda: _client_after(ask, services, operation.id, row.id, 201))
    return document


async def look_at_place(services: Services, server_id: int) -> images.Place:
    """What a client would find on a server: its images, and the ports that are taken.

    Raises:
        FieldError: there is no such server.
        HostKeyChangedError: it is shut off.
    """
    async with services.sessions() as session:
        server = await session.get(Server, server_id)
    if server is None:
        raise FieldError("server_id", f"There is no server {server_id}.")
    servers.check_usable(server)
    async with servers.shutting_off(services.sessions, server.address):
        return await images.look_at_place(services.pool, server, services.repository)


@router.patch("/clients/{client_id}")
async def update_client(
    client_id: IntId, sent: ClientChange, session: SessionDep, caller: CallerDep, ask: AskDep
) -> ClientDocument:
    """Change a client; where the change must reach its server, the relationship `operation` brings it there."""
    return await change_client(client_id, sent.value, session, caller, ask)


async def change_client(
    client_id: int, change: ClientUpdate, session: AsyncSession, caller: CallerDep, ask: AskDep
) -> ClientDocument:
    """The changed client."""
    values = change.model_dump(exclude_unset=True)
    if "max_resources" in values:
        values["max_resources"] = values["max_resources"] or {}
    row, operation = await clients.update_client(session, client_id, values, caller)
    if operation is not None:
        ask.follow(operation.id, lambda: _client_after(ask, ask.services, operation.id, client_id, 200))
    return await client_document(session, row)


async def _client_after(
    ask: AskDep, services: Services, operation_id: UUID, client_id: int, status: int
) -> Ending | None:
    await ask.ended(operation_id)
    async with services.sessions() as session:
        return status, await client_document(session, await clients.get_client(session, client_id))


@router.delete("/clients/{client_id}", status_code=202, responses=COMMANDED)
async def delete_client(
    client_id: IntId,
    session: SessionDep,
    caller: CallerDep,
    ask: CommandDep,
    keep_archive: KeepArchive = True,
    confirm_name: ConfirmName = "",
) -> OperationDocument | PlanDocument:
    """Take the client from every server that it ever stood on, after a verified archive of its database and files.
    `restore` brings it back from that. Where a server is away it stays `deleting` and is tried again; its name is free
    once all is gone.
    """
    request = backups.request_deletion(session, client_id, caller, keep_archive=keep_archive, confirm_name=confirm_name)
    return await ask.command(session, request)


@router.get("/clients/{client_id}/create_log", response_model=LogDocument)
async def read_create_log(
    client_id: IntId,
    request: Request,
    services: ServicesDep,
    media: LogMedia,
    after_seq: AfterSeq = 0,
    wait_s: LogWaitS = 0,
    follow_log: FollowLog = False,
) -> Any:
    """The creation's log; after a retry it goes on with the next `seq`, and `completed` is null again."""
    async with services.sessions() as session:
        await clients.get_client(session, client_id)
        ids = [row.id for row in await clients.creations(session, client_id)]
    return await answer_log(request, services, ids, media, after_seq=after_seq, wait_s=wait_s, follow_log=follow_log)
