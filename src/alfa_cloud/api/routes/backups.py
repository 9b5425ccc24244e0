"""Back-ups of clients, and clients that come back from an archive."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any, Final

from fastapi import Query, Response
from starlette.requests import Request

from alfa_cloud.api.dependencies import CallerDep, IntId, OpenSessionDep, SessionDep, UuidId
from alfa_cloud.api.jsonapi.query import Listing, lists
from alfa_cloud.api.routes.clients import look_at_place
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.schemas.backups import BackupCollection, BackupDocument, backup_resource
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.schemas.servers import KEY_CHANGED
from alfa_cloud.api.state import CommandDep, ServicesDep
from alfa_cloud.api.streams import FollowedResponse
from alfa_cloud.services import backups, client_commands, clients, operations, servers
from alfa_cloud.services.backups import Download
from alfa_cloud.specs import OperationKind

router = ApiRouter(tags=["clients"])

Answer = OperationDocument | PlanDocument
BackupListing = Annotated[Listing, lists(sorts=tuple(backups.SORTS), sort="-created_at")]
Expires = Annotated[str, Query(max_length=20, description="As the link says.", examples=["1799999999"])]
Signature = Annotated[str, Query(max_length=100, description="As the link says.", examples=["5d41402abc4b2a76"])]
TAR: Final = "application/x-tar"
DOWNLOADED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file; `Repr-Digest` says its SHA-256.",
        "content": {TAR: {"schema": {"type": "string", "format": "binary"}}},
    },
    **{status: {"$ref": f"#/components/responses/{status}"} for status in (400, 403, 404, 409, 500, 503)},
    **KEY_CHANGED,
}
ServerId = Annotated[
    int | None, Query(ge=1, le=2**31 - 1, description="Where it is to stand; by default where it stood.")
]


@router.get("/clients/{client_id}/backups")
async def list_backups(client_id: IntId, session: SessionDep, listing: BackupListing) -> BackupCollection:
    """A client's back-ups, the newest first; of a deleted client too."""
    page = await backups.list_backups(session, client_id, listing.query)
    return BackupCollection.of(map(backup_resource, page.rows), listing, page.total)


@router.post("/clients/{client_id}/backups", status_code=202, responses=COMMANDED)
async def back_up_client(client_id: IntId, session: SessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Take a back-up of the client's database and files, while it works; seconds to minutes, by their size."""
    kind = OperationKind.BACK_UP_CLIENT
    return await ask.command(session, client_commands.request(session, client_id, kind, caller))


@router.get("/clients/{client_id}/backups/{backup_id}")
async def read_backup(
    client_id: IntId, backup_id: UuidId, session: SessionDep, services: ServicesDep
) -> BackupDocument:
    """One back-up, with a link to its file that is good for 15 minutes."""
    backup = await backups.get_backup(session, client_id, backup_id)
    link = backups.download_link(backup, await operations.database_now(session), services.vault)
    return BackupDocument.of(backup_resource(backup, link))


@router.get(
    "/clients/{client_id}/backups/{backup_id}/file",
    response_class=Response,
    response_model=None,
    tags=["public"],
    responses=DOWNLOADED,
)
async def download_backup(
    request: Request,
    client_id: IntId,
    backup_id: UuidId,
    services: ServicesDep,
    expires: Expires = "",
    signature: Signature = "",
) -> Response:
    """A back-up's file, by the link that its resource shows; no login is asked for. A file that is damaged, or cut on
    the way, ends before its `Content-Length`.
    """
    until = backups.check_signature(client_id, backup_id, expires, signature, services.vault)
    async with services.sessions() as session:
        found = await backups.find_download(session, client_id, backup_id, until, services.profile.app)
    async with servers.shutting_off(services.sessions, found.site.address):
        await backups.check_download(services.look_at(found.site), found)
        parts = backups.read_download(services.pool, found)
        if request.method != "HEAD":
            await anext(parts)
    return FollowedResponse(parts, media_type=TAR, headers=_file_headers(found))


def _file_headers(found: Download) -> dict[str, str]:
    digest = b64encode(bytes.fromhex(found.sha256)).decode()
    return {
        "Accept-Ranges": "none",
        "Content-Disposition": f'attachment; filename="{found.filename}"',
        "Content-Length": str(found.size_bytes),
        "Repr-Digest": f"sha-256=:{digest}:",
        "X-Accel-Buffering": "no",
    }


@router.post("/clients/{client_id}/backups/{backup_id}/restore", status_code=202, responses=COMMANDED)
async def restore_backup(
    client_id: IntId, backup_id: UuidId, session: SessionDep, caller: CallerDep, ask: CommandDep
) -> Answer:
    """Put a back-up in the place of the client's database and files, under the maintenance page. The present state is
    backed up first, and is put back where this fails.
    """
    return await ask.command(session, backups.request_restore(session, client_id, backup_id, caller))


@router.post("/clients/{client_id}/restore", status_code=202, responses=COMMANDED)
async def restore_client(
    client_id: IntId, open_session: OpenSessionDep, caller: CallerDep, ask: CommandDep, server_id: ServerId = None
) -> Answer:
    """Bring a deleted client back from its archive: with its data, its password and its address. 409 where its name or
    domain was taken since, or the archive is not kept any more.
    """
    async with ask.services.sessions() as session:
        client = await clients.get_client(session, client_id)
    place = await look_at_place(ask.services, server_id or client.server_id)
    session = await open_session()
    busy = place.busy_ports
    return await ask.command(session, backups.request_return(session, client_id, server_id, caller, busy_ports=busy))
