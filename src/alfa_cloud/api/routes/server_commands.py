"""Commands of one server, and what is found on it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request

from alfa_cloud.api.dependencies import CallerDep, IntId, OpenSessionDep, SessionDep
from alfa_cloud.api.jsonapi.body import Body, command_body
from alfa_cloud.api.routes.servers import server_document
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.schemas.server_facts import (
    HostKeyPin,
    RequirementCollection,
    SampleCollection,
    requirement_collection,
    sample_collection,
)
from alfa_cloud.api.schemas.servers import KEY_CHANGED, ServerDocument
from alfa_cloud.api.state import CommandDep, ServicesDep
from alfa_cloud.services import checks, host_keys, samples, servers
from alfa_cloud.specs import OperationKind

router = ApiRouter(tags=["servers"])

Answer = OperationDocument | PlanDocument
LastHours = Annotated[int, Query(ge=1, le=336, description="How far back; at most two weeks.")]
KeyBody = Annotated[
    Body[Any],
    command_body(HostKeyPin, example={"fingerprint": "SHA256:uNiVztksCsDhcc0u9e8BrrQXVUpJVfhxBIIjJzcUAhU"}),
]


@router.get("/servers/{server_id}/check", responses=KEY_CHANGED)
async def check_server(server_id: IntId, request: Request, services: ServicesDep) -> RequirementCollection:
    """Every requirement of a server, as it is now: what was found, and the exact line that mends it. Some seconds, 15
    at most; 503 where the server cannot be asked, with what it missed at the last look.
    """
    async with services.sessions() as session:
        row = await servers.get_server(session, server_id)
        servers.check_usable(row)
    async with servers.shutting_off(services.sessions, row.address):
        found = await checks.look(services.pool, row, services.profile.min_free_bytes)
    async with services.sessions.begin() as session:
        await checks.remember(session, server_id, found)
    return requirement_collection(found, request.url.path)


@router.get("/servers/{server_id}/metrics")
async def list_server_samples(
    server_id: IntId, request: Request, session: SessionDep, last_hours: LastHours = 24
) -> SampleCollection:
    """What a server was busy with in the last hours, for plots: a point for each minute, or the averages of as many
    minutes as make at most 1500 points.
    """
    return sample_collection(await samples.plot(session, server_id, last_hours), request.url.path, last_hours)


@router.post("/servers/{server_id}/provision", status_code=202, responses=COMMANDED)
async def provision_server(server_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Bring a bare Debian or Ubuntu all that `check` misses: packages, services, settings. Some minutes; what is there
    already stays as it is, so it can be repeated.
    """
    kind = OperationKind.PROVISION_SERVER
    return await ask.command(session, servers.request_command(session, server_id, kind, caller))


@command(router, "/servers/{server_id}/reboot_server", responses=COMMANDED)
async def reboot_server(server_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Reboot a server, once what runs on it has ended; what comes later waits. Done when SSH, Docker and the clients
    that answered before answer again. Minutes, with the clients away.
    """
    kind = OperationKind.REBOOT_SERVER
    return await ask.command(session, servers.request_command(session, server_id, kind, caller))


@router.post("/servers/{server_id}/host_key")
async def pin_host_key(
    server_id: IntId, sent: KeyBody, open_session: OpenSessionDep, services: ServicesDep
) -> ServerDocument:
    """Pin a server's host key anew, where it shows the very key that is sent. An empty object is 422 with the
    fingerprint that the server shows, to be compared on the server itself. Within 15 s.
    """
    async with services.sessions() as session:
        row = await servers.get_server(session, server_id)
        where = (row.host, row.port)
    shown = await host_keys.shown_by(services.pool, *where)
    host_keys.check(shown, wanted_key=sent.value.host_key, wanted_fingerprint=sent.value.fingerprint)
    session = await open_session()
    pinned = await host_keys.pin(session, server_id, shown, seen_at=where)
    return await server_document(session, pinned)
