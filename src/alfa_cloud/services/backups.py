"""Back-ups of clients: asked for, listed, restored, kept and removed; and clients that are only an archive."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import (
    BackupNotFoundError,
    ClientNameTakenError,
    ClientStateError,
    ConflictError,
    FieldError,
    ForbiddenError,
    HostKeyChangedError,
    RemoteError,
)
from alfa_cloud.models import Backup, Client, Operation, Place, Server
from alfa_cloud.playbooks.steps.backup import is_whole
from alfa_cloud.profile import Keeping
from alfa_cloud.remote import backup as remote_backup
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.process import execute
from alfa_cloud.services import client_commands, clients, operations
from alfa_cloud.services.client_specs import client_spec
from alfa_cloud.services.images import ServerUnavailableError
from alfa_cloud.services.listing import ListQuery, Page, fetch_page
from alfa_cloud.services.operations import UNFINISHED, Caller
from alfa_cloud.services.plans.plan import Site
from alfa_cloud.specs import AppProfile, ClientSpec, ClientStatus, OperationKind
from alfa_cloud.vault import Vault

DEADLINE_S: Final = 24 * 3600.0
LINK_S: Final = 15 * 60
LOOK_S: Final = 8.0
SCHEDULE: Final = "schedule"
FINAL: Final = "final"
SORTS: Final = {
    name: getattr(Backup, name) for name in ("created_at", "size_bytes", "reason", "proven_at", "keep_until")
}


class LinkRefusedError(ForbiddenError):
    """A download's link is not one that this service gave."""

    code = "link_refused"
    title = "The link is wrong"


class LinkExpiredError(ForbiddenError):
    """A download's link was good, and is not any more."""

    code = "link_expired"
    title = "The link is over"


class BackupMissingError(ConflictError):
    """A back-up is not where it was put, or not what it was."""

    code = "backup_missing"
    title = "The back-up is not there"


async def list_backups(session: AsyncSession, client_id: int, asked: ListQuery) -> Page[Backup]:
    """A page of a client's back-ups, the newest first; of a deleted client too.

    Raises:
        ClientNotFoundError: there is no such client.
    """
    await clients.get_client(session, client_id)
    query = select(Backup).where(Backup.client_id == client_id)
    return await fetch_page(session, query, asked, sorts=SORTS, default=(("created_at", True),), tie=Backup.id)


async def get_backup(session: AsyncSession, client_id: int, backup_id: UUID) -> Backup:
    """One back-up of a client.

    Raises:
        BackupNotFoundError: the client has none of that id.
    """
    backup = await session.get(Backup, backup_id)
    if backup is None or backup.client_id != client_id:
        raise BackupNotFoundError(f"Client {client_id} has no back-up {backup_id}.")
    return backup


async def request_restore(session: AsyncSession, client_id: int, backup_id: UUID, caller: Caller) -> Operation:
    """The operation that puts a back-up in the place of a client's data; the present is backed up first.

    Raises:
        ClientNotFoundError, BackupNotFoundError: there is none.
        ClientStateError: it is not allowed now.
    """
    backup = await get_backup(session, client_id, backup_id)
    client = await clients.get_client(session, client_id, lock=True)
    reason = client_commands.why_not(client, OperationKind.RESTORE_BACKUP)
    if reason is not None:
        raise ClientStateError(reason)
    await _check_stays(session, backup)
    operation, _ = await operations.request(
        session,
        OperationKind.RESTORE_BACKUP,
        caller,
        client_id=client_id,
        server_id=client.server_id,
        other_server_id=None if backup.server_id == client.server_id else backup.server_id,
        params={"backup_id": str(backup_id)},
        deadline_s=DEADLINE_S,
    )
    return operation


async def _check_stays(session: AsyncSession, backup: Backup) -> None:
    """Nothing, where a back-up is not being removed; its client's row is locked."""
    removal = select(Operation.id).where(
        Operation.client_id == backup.client_id,
        Operation.kind == OperationKind.REMOVE_BACKUP,
        Operation.state.in_(UNFINISHED),
        Operation.params["backup_id"].astext == str(backup.id),
    )
    if await session.scalar(removal.limit(1)) is not None:
        raise ClientStateError("The time of this back-up is over, and it is being removed; take another one.")


async def request_deletion(
    session: AsyncSession, client_id: int, caller: Caller, *, keep_archive: bool, confirm_name: str
) -> Operation:
    """The operation that takes a client from every server that it ever stood on, after a final archive of its data.

    Raises:
        ClientNotFoundError: there is none.
        FieldError: it is to go without an archive, and nobody has said its name.
        ClientStateError: it is gone, or on its way back.
    """
    client = await clients.get_client(session, client_id, lock=True)
    if client.status in (ClientStatus.ARCHIVED, ClientStatus.RESTORING):
        raise ClientStateError(f"{client.name} is {client.status}.")
    if not keep_archive and confirm_name != client.name:
        detail = "Without an archive nothing can bring the client's data back; say its name where that is wanted."
        raise FieldError("confirm_name", detail, code="confirm_name_needed")
    operation, _ = await operations.request(
        session,
        OperationKind.DELETE_CLIENT,
        caller,
        client_id=client.id,
        server_id=client.server_id,
        params={} if keep_archive else {"keep_archive": False},
        deadline_s=DEADLINE_S,
    )
    client.status, client.operation_id = ClientStatus.DELETING, operation.id
    await session.flush()
    return operation


async def final_backup(session: AsyncSession, client_id: int) -> Backup | None:
    """The archive of a client that was deleted, or is being deleted."""
    query = select(Backup).where(Backup.client_id == client_id, Backup.reason == FINAL)
    return await session.scalar(query.order_by(Backup.created_at.desc()).limit(1))


async def request_return(
    session: AsyncSession, client_id: int, server_id: int | None, caller: Caller, *, busy_ports: Collection[int]
) -> Operation:
    """The operation that brings a deleted client back from its archive.

    Args:
        server_id: where it is to stand; None is where it stood.
        busy_ports: what something on that server listens on.

    Raises:
        ClientNotFoundError: there is none.
        ConflictError: it is not deleted, its archive is not kept any more, its name or domain was taken since, or the
            server cannot take it.
    """
    client = await clients.get_client(session, client_id, lock=True)
    last = await operations.last_unfinished(session, client_id)
    if client.status == ClientStatus.RESTORING and last and last.server_id == (server_id or client.server_id):
        return last
    if client.status != ClientStatus.ARCHIVED:
        raise ClientStateError(f"{client.name} is {client.status}; only a deleted client is brought back.")
    archive = await final_backup(session, client_id)
    if archive is None:
        raise ClientStateError(f"The archive of {client.name} is not kept any more.")
    await _check_stays(session, archive)
    server = await clients.server_for(session, server_id or client.server_id)
    source = await session.get_one(Server, archive.server_id)
    if server.database_engine != source.database_engine:
        raise ClientStateError(
            f"The archive of {client.name} is of {source.database_engine}, and {server.name} has "
            f"{server.database_engine}."
        )
    await _take_place(session, client, server, busy_ports)
    operation, _ = await operations.request(
        session,
        OperationKind.RESTORE_CLIENT,
        caller,
        client_id=client.id,
        server_id=server.id,
        other_server_id=None if source.id == server.id else source.id,
        params={"backup_id": str(archive.id)},
        deadline_s=DEADLINE_S,
    )
    client.operation_id = operation.id
    await session.flush()
    return operation


async def _take_place(session: AsyncSession, client: Client, server: Server, busy: Collection[int]) -> None:
    """The client has its name, its domain and two ports again."""
    client.server_id, client.slot = server.id, "a"
    client.port, client.spare_port = await clients.free_ports(session, server, busy, 2)
    client.status = ClientStatus.RESTORING
    try:
        async with session.begin_nested():
            await session.flush()
    except IntegrityError as error:
        raise ClientNameTakenError("The name or the domain was taken since; rename that client first.") from error


async def record(session: AsyncSession, backup: Backup, keeping: Keeping) -> None:
    """A back-up that an operation has made is known; once."""
    if await session.get(Backup, backup.id) is not None:
        return
    backup.created_at = await operations.database_now(session)
    if backup.reason != SCHEDULE:
        days = keeping.archive_days if backup.reason == FINAL else keeping.backup_days
        backup.keep_until = backup.created_at + timedelta(days=days)
    session.add(backup)
    await session.execute(update(Client).where(Client.id == backup.client_id).values(last_backup_at=backup.created_at))


async def archived(session: AsyncSession, client: Client) -> None:
    """A deleted client is gone from all servers; where it left an archive, its row stays, and without one it goes."""
    await session.execute(delete(Place).where(Place.client_id == client.id))
    if await final_backup(session, client.id) is None:
        await session.delete(client)
        return
    client.status = ClientStatus.ARCHIVED
    client.port = client.spare_port = None
    client.available, client.available_reason = False, "deleted"
    client.maintenance, client.available_at = False, func.clock_timestamp()


async def archive_was_used(session: AsyncSession, client_id: int, keeping: Keeping) -> None:
    """The archive of a client that lives again is a back-up like any other."""
    until = await operations.database_now(session) + timedelta(days=keeping.backup_days)
    which = update(Backup).where(Backup.client_id == client_id, Backup.reason == FINAL)
    await session.execute(which.values(reason="command", keep_until=until))


@dataclass(frozen=True, slots=True)
class Download:
    """A back-up as the one file that it is downloaded as.

    Args:
        site: where it lies.
        name: of its files there.
        filename: what people get it as.
    """

    site: Site
    spec: ClientSpec
    name: str
    filename: str
    size_bytes: int
    sha256: str


def download_link(backup: Backup, now: datetime, vault: Vault) -> tuple[str, datetime]:
    """Where a back-up's file is got without a login, and until when."""
    until = int(now.timestamp()) + LINK_S
    path = _file_path(backup.client_id, backup.id)
    link = f"{path}?expires={until}&signature={_signature(path, str(until), vault)}"
    return link, datetime.fromtimestamp(until, UTC)


def check_signature(client_id: int, backup_id: UUID, expires: str, signature: str, vault: Vault) -> datetime:
    """Until when a link that this service gave is good.

    Raises:
        LinkRefusedError: it is another one.
    """
    right = _signature(_file_path(client_id, backup_id), expires, vault)
    if not hmac.compare_digest(right.encode(), signature.encode()):
        raise LinkRefusedError("This is not a link of this service; ask for the back-up again, and use its new link.")
    return datetime.fromtimestamp(int(expires), UTC)


def _file_path(client_id: int, backup_id: UUID) -> str:
    return f"/clients/{client_id}/backups/{backup_id}/file"


def _signature(path: str, expires: str, vault: Vault) -> str:
    return vault.digest(f"download {path} {expires}".encode()).hex()


async def find_download(
    session: AsyncSession, client_id: int, backup_id: UUID, until: datetime, app: AppProfile
) -> Download:
    """What a link leads to.

    Args:
        until: how long the link is good.

    Raises:
        LinkExpiredError: it is over.
        BackupNotFoundError: the back-up is gone.
        HostKeyChangedError: the server where it lies is shut off.
    """
    if await operations.database_now(session) > until:
        raise LinkExpiredError("The link is over; ask for the back-up again, and use its new link.")
    backup = await get_backup(session, client_id, backup_id)
    client = await clients.get_client(session, client_id)
    server = await session.get_one(Server, backup.server_id)
    return Download(
        Site.of(server),
        client_spec(client, server, app),
        backup.name,
        f"{client.name}-{backup.created_at.astimezone(UTC):%Y%m%d-%H%M%S}.tar",
        backup.size_bytes,
        backup.sha256,
    )


async def check_download(host: Host, found: Download) -> None:
    """Nothing, where the back-up is on its server.

    Raises:
        BackupMissingError: it is not.
        ServerUnavailableError: the server could not be asked.
        HostKeyChangedError: it shows another key than the pinned one.
    """
    try:
        async with asyncio.timeout(LOOK_S):
            there = await is_whole(host, found.spec, found.name)
    except HostKeyChangedError:
        raise
    except (RemoteError, TimeoutError) as error:
        raise ServerUnavailableError("The server where the back-up lies does not answer; try again soon.") from error
    if not there:
        raise BackupMissingError("The back-up's files are not on its server any more; take another one.")


async def read_download(pool: SshPool, found: Download) -> AsyncGenerator[bytes, None]:
    """A back-up's file as it comes from its server; first nothing, once it begins to come.

    A part is held back until the next one has come, and the last one until all of it is known to be what it was: what
    is damaged on the way ends before its end.

    Raises:
        BackupMissingError: it is not what it was.
        ServerUnavailableError: the server could not be asked, or the connection ended.
        HostKeyChangedError: it shows another key than the pinned one.
    """
    parts = asyncio.Queue[bytes](1)
    command = remote_backup.send(found.spec, found.name)
    running = asyncio.create_task(execute(pool, found.site.address, command, parts.put, _drop))
    digest, length, held = hashlib.sha256(), 0, b""
    try:
        while part := await _next(parts, running):
            digest.update(part)
            length += len(part)
            yield held
            held = part
        status = await running
        if (status, length, digest.hexdigest()) != (0, found.size_bytes, found.sha256):
            raise BackupMissingError("The back-up is not what it was; its next proof will tell.")
        yield held
    except HostKeyChangedError:
        raise
    except RemoteError as error:
        raise ServerUnavailableError("The connection to the server where the back-up lies ended.") from error
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _next(parts: asyncio.Queue[bytes], running: asyncio.Task[int]) -> bytes:
    """What comes next; empty at the end."""
    taking = asyncio.create_task(parts.get())
    try:
        await asyncio.wait((taking, running), return_when=asyncio.FIRST_COMPLETED)
        return b"" if not taking.done() and parts.empty() else await taking
    finally:
        taking.cancel()


async def _drop(words: bytes) -> None:
    del words
