"""Servers of the fleet, and what is on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from alfa_cloud.api.after import Ending
from alfa_cloud.api.dependencies import CallerDep, IntId, OpenSessionDep, SessionDep
from alfa_cloud.api.jsonapi.body import Body, body
from alfa_cloud.api.jsonapi.negotiation import Media
from alfa_cloud.api.jsonapi.query import Listing, lists
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.schemas.servers import (
    KEY_CHANGED,
    NO_SUCH,
    SERVER_EXAMPLE,
    ImageCollection,
    ServerCollection,
    ServerCreate,
    ServerDocument,
    ServerUpdate,
    image_resource,
    server_resource,
)
from alfa_cloud.api.state import AskDep, Services, ServicesDep
from alfa_cloud.api.streams import offers, text_stream
from alfa_cloud.models import Server
from alfa_cloud.services import identity, images, samples, servers
from alfa_cloud.services.samples import Seen
from alfa_cloud.services.servers import Enrolment

router = ApiRouter(tags=["servers"])
images_router = ApiRouter(tags=["images"])

ServerListing = Annotated[Listing, lists(filters=servers.FILTERS, sorts=tuple(servers.SORTS), sort="name")]
ServerBody = Annotated[Body[Any], body("servers", ServerCreate, update=ServerUpdate, example=SERVER_EXAMPLE)]
ServerChange = Annotated[Body[Any], body("servers", ServerUpdate, path_id="server_id", example={"max_clients": 50})]
ImageListing = Annotated[Listing, lists()]


async def server_document(
    session: AsyncSession, row: Server, operation_id: UUID | None = None, seen: Seen | None = None
) -> ServerDocument:
    """The document of one server."""
    counts = await servers.count_clients(session, [row.id])
    if operation_id is None:
        last = (await servers.last_preparations(session, [row.id])).get(row.id)
        operation_id = None if last is None else last.id
    return ServerDocument.of(server_resource(row, counts.get(row.id, 0), operation_id, seen))


@router.get("/servers")
async def list_servers(session: SessionDep, listing: ServerListing) -> ServerCollection:
    """The active servers, for placing new clients; `filter[active]=false` or `all` for the rest."""
    page = await servers.list_servers(session, listing.query)
    ids = [row.id for row in page.rows]
    counts = await servers.count_clients(session, ids)
    last = await servers.last_preparations(session, ids)
    resources = [
        server_resource(row, counts.get(row.id, 0), last[row.id].id if row.id in last else None) for row in page.rows
    ]
    return ServerCollection.of(resources, listing, page.total)


@router.get("/servers/{server_id}")
async def read_server(server_id: IntId, services: ServicesDep) -> ServerDocument:
    """One server, with its load in real time: taken over SSH within 2 s, or else the last known with `stale: true`."""
    async with services.sessions() as session:
        row = await servers.get_server(session, server_id)
    taken = not row.host_key_changed and await samples.take_now(
        services.sessions, services.pool, row.address, row.layout_spec
    )
    async with services.sessions() as session:
        row = await servers.get_server(session, server_id)
        return await server_document(session, row, seen=samples.live(row, taken=taken))


@router.post("/servers/", status_code=201, responses={200: {"model": ServerDocument}, **NO_SUCH})
async def create_or_update_server(
    sent: ServerBody,
    response: Response,
    open_session: OpenSessionDep,
    services: ServicesDep,
    caller: CallerDep,
    ask: AskDep,
) -> ServerDocument:
    """Register a server, or update the one whose id is sent. It is connected to and looked at before the answer; an
    address, port, user or key that does not work is 422 on that field, and nothing is made.
    """
    if sent.id is not None:
        response.status_code = 200
        return await change_server(sent.int_id, sent.value, open_session, services, caller, ask)
    values = sent.value.model_dump()
    enrolment = await servers.enrol(services.pool, values, services.repository)
    session = await open_session()
    row, operation = await servers.create_server(session, values, enrolment, caller)
    document = await server_document(session, row, operation.id)
    response.headers["Location"] = document.data.own_link
    ask.follow(operation.id, lambda: _server_after(ask, services, operation.id, row.id, 201))
    return document


@router.patch("/servers/{server_id}")
async def update_server(
    server_id: IntId,
    sent: ServerChange,
    open_session: OpenSessionDep,
    services: ServicesDep,
    caller: CallerDep,
    ask: AskDep,
) -> ServerDocument:
    """Change a server; a new address, user or key is tried before it is taken. Nothing but the id: look anew."""
    return await change_server(server_id, sent.value, open_session, services, caller, ask)


async def change_server(
    server_id: int,
    change: ServerUpdate,
    open_session: OpenSessionDep,
    services: Services,
    caller: CallerDep,
    ask: AskDep,
) -> ServerDocument:
    """The changed server, looked at anew where the way to it changes."""
    values = change.model_dump(exclude_unset=True)
    enrolment = await _look_again(server_id, values, services)
    session = await open_session()
    row, operation = await servers.update_server(session, server_id, values, enrolment, caller)
    if operation is not None:
        ask.follow(operation.id, lambda: _server_after(ask, services, operation.id, server_id, 200))
    return await server_document(session, row, None if operation is None else operation.id)


async def _look_again(server_id: int, values: dict[str, Any], services: Services) -> Enrolment | None:
    async with services.sessions() as session:
        row = await servers.get_server(session, server_id)
        present = {name: getattr(row, name) for name in servers.CONNECTION_FIELDS}
    if not servers.changes_the_way(row, values):
        return None
    moved = any(values.get(name, present[name]) != present[name] for name in ("host", "port"))
    trusted = {} if moved and "host_key" not in values else {"host_key": present["host_key"]}
    return await servers.enrol(services.pool, {**present, "host_key": None, **trusted, **values}, services.repository)


async def _server_after(
    ask: AskDep, services: Services, operation_id: UUID, server_id: int, status: int
) -> Ending | None:
    await ask.ended(operation_id)
    async with services.sessions() as session:
        row = await servers.get_server(session, server_id)
        return status, await server_document(session, row, operation_id)


@router.delete("/servers/{server_id}", status_code=204)
async def delete_server(server_id: IntId, session: SessionDep, services: ServicesDep) -> None:
    """Forget a server, in the database only; 409 while clients stand on it."""
    await servers.delete_server(session, server_id)
    await services.pool.drop(server_id)


@images_router.get("/servers/{server_id}/images", responses=KEY_CHANGED)
async def list_server_images(server_id: IntId, services: ServicesDep, listing: ImageListing) -> ImageCollection:
    """The images of the app on a server now, and which clients use each; 503 where the server cannot be asked."""
    async with services.sessions() as session:
        row = await servers.get_server(session, server_id)
        servers.check_usable(row)
        address, layout = row.address, row.layout_spec
    async with servers.shutting_off(services.sessions, address):
        found = await images.look(services.pool, address, layout, services.repository)
    async with services.sessions.begin() as session:
        await servers.remember_images(session, server_id, found)
        users = await images.users_of(session, server_id)
        needed = await images.needed(session, server_id, services.repository)
    now, query = datetime.now(UTC), listing.query
    shown = found[(query.number - 1) * query.size : query.number * query.size]
    resources = [
        image_resource(image, users.get(image.tag, []), prunable=images.prunable(image, found, needed), now=now)
        for image in shown
    ]
    return ImageCollection.of(resources, listing, len(found))


@router.get("/ssh_public_key", response_model=None)
async def read_ssh_public_key(
    request: Request, session: SessionDep, media: Annotated[Media, offers(Media.TEXT)]
) -> Any:
    """The line to put into `authorized_keys` of `www-data` on a new server."""
    del request, media
    line = await identity.public_key(session)

    async def lines() -> Any:
        yield line

    return text_stream(lines())
