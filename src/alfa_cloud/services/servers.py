"""Servers: registered after a look, changed, listed, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Final

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import (
    FieldError,
    HostKeyChangedError,
    LoginRefusedError,
    RemoteError,
    ServerInUseError,
    ServerNameTakenError,
    ServerNotFoundError,
)
from alfa_cloud.models import Backup, Client, Operation, Place, Server
from alfa_cloud.remote.docker import Image
from alfa_cloud.remote.look import first_look
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.requirements import Finding, all_met
from alfa_cloud.services import operations
from alfa_cloud.services.listing import MAX_ID, FilterError, ListQuery, Page, fetch_page, parse_words
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import Address, ClientStatus, DatabaseEngine, Layout, OperationKind, ServerRole, Tls, fingerprint

SORTS: Final = {
    "id": Server.id,
    "name": Server.name,
    "host": Server.host,
    "role": Server.role,
    "active": Server.active,
    "created_at": Server.created_at,
}
FILTERS: Final = ("active", "role", "database_engine")
PREPARATIONS: Final = (OperationKind.PREPARE_SERVER, OperationKind.PROVISION_SERVER)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a first look at a server found."""

    host_key: str
    layout: Layout
    findings: tuple[Finding, ...]
    images: tuple[Image, ...]


async def get_server(session: AsyncSession, server_id: int, *, lock: bool = False) -> Server:
    """The server.

    Raises:
        ServerNotFoundError: there is none.
    """
    server = await session.get(Server, server_id, with_for_update=lock) if server_id <= MAX_ID else None
    if server is None:
        raise ServerNotFoundError(f"There is no server {server_id}.")
    return server


async def list_servers(session: AsyncSession, asked: ListQuery) -> Page[Server]:
    """A page of servers; the active ones, unless `filter[active]` says otherwise.

    Raises:
        FilterError: a filter's value is of the wrong form.
    """
    query: Select[tuple[Server]] = select(Server)
    active = asked.filters.get("active", "true")
    if active not in ("true", "false", "all"):
        raise FilterError("active", "Give true, false or all.")
    if active != "all":
        query = query.where(Server.active.is_(active == "true"))
    for name, known in (("role", ServerRole), ("database_engine", DatabaseEngine)):
        if name in asked.filters:
            query = query.where(getattr(Server, name).in_(parse_words(name, asked.filters[name], known)))
    return await fetch_page(session, query, asked, sorts=SORTS, default=(("name", False),), tie=Server.id)


async def count_clients(session: AsyncSession, server_ids: list[int]) -> dict[int, int]:
    """How many clients stand on each of these servers."""
    rows = await session.execute(
        select(Client.server_id, func.count())
        .where(Client.server_id.in_(server_ids), Client.status != ClientStatus.ARCHIVED)
        .group_by(Client.server_id)
    )
    return {row.server_id: row[1] for row in rows}


async def last_preparations(session: AsyncSession, server_ids: list[int]) -> dict[int, Operation]:
    """The last preparation of each of these servers."""
    rows = await session.scalars(
        select(Operation)
        .ext(distinct_on(Operation.server_id))
        .where(Operation.server_id.in_(server_ids), Operation.kind.in_(PREPARATIONS))
        .order_by(Operation.server_id, Operation.created_at.desc())
    )
    return {row.server_id: row for row in rows if row.server_id is not None}


async def create_server(
    session: AsyncSession, values: Mapping[str, Any], enrolment: Enrolment, caller: Caller
) -> tuple[Server, Operation]:
    """A new server, as the look found it, and the operation that prepares it.

    Raises:
        ServerNameTakenError: another server bears the name, or has this address.
    """
    server = Server(**{**values, "host_key": enrolment.host_key})
    _take_enrolment(server, enrolment)
    session.add(server)
    await _flush(session, server)
    operation = await request_preparation(session, server, caller)
    return server, operation


async def update_server(
    session: AsyncSession, server_id: int, values: Mapping[str, Any], enrolment: Enrolment | None, caller: Caller
) -> tuple[Server, Operation | None]:
    """The changed server; where its address changed, it was looked at anew and is prepared anew.

    Raises:
        ServerNotFoundError: there is none.
        ServerNameTakenError: another server bears the name, or has this address.
        FieldError: the database system is to change while clients stand on it.
    """
    server = await get_server(session, server_id, lock=True)
    moved = "database_engine" in values and values["database_engine"] != server.database_engine
    if moved and (await count_clients(session, [server_id])).get(server_id):
        raise FieldError("database_engine", "Clients stand on this server; its database system stays.")
    for name, value in values.items():
        # Without a look the way to it has not changed: what another request changed meanwhile stays.
        if enrolment is not None or name not in CONNECTION_FIELDS:
            setattr(server, name, value)
    if enrolment is None:
        await _flush(session, server)
        return server, None
    server.host_key, server.host_key_changed = enrolment.host_key, False
    _take_enrolment(server, enrolment)
    await _flush(session, server)
    return server, await request_preparation(session, server, caller)


def _take_enrolment(server: Server, enrolment: Enrolment) -> None:
    server.layout = asdict(enrolment.layout)
    server.requirements = [asdict(row) for row in enrolment.findings]
    server.requirements_ok = all_met(enrolment.findings)
    server.reachable = True
    server.seen_at = func.clock_timestamp()
    server.images = [asdict(image) for image in enrolment.images]
    server.images_at = func.clock_timestamp()


async def _flush(session: AsyncSession, server: Server) -> None:
    name, host, port = server.name, server.host, server.port
    try:
        async with session.begin_nested():
            await session.flush()
    except IntegrityError as error:
        if "uq_servers_host_port" in str(error.orig):
            raise ServerNameTakenError(f"A server at {host} port {port} is registered already.") from error
        if "uq_servers_name" in str(error.orig):
            raise ServerNameTakenError(f"A server named {name} is registered already.") from error
        raise
    await session.refresh(server)


async def request_preparation(session: AsyncSession, server: Server, caller: Caller) -> Operation:
    """The operation that prepares a server."""
    about = fingerprint([asdict(server.address), server.database_engine, server.tls, server.layout])
    operation, _ = await operations.request(
        session, OperationKind.PREPARE_SERVER, caller, server_id=server.id, exclusive=True, params={"about": about}
    )
    return operation


async def request_command(session: AsyncSession, server_id: int, kind: OperationKind, caller: Caller) -> Operation:
    """The operation that carries out a command on a whole server; nothing else runs on it meanwhile.

    Raises:
        ServerNotFoundError: there is none.
        HostKeyChangedError: it is shut off until its key is pinned anew.
    """
    check_usable(await get_server(session, server_id))
    operation, _ = await operations.request(session, kind, caller, server_id=server_id, exclusive=True)
    return operation


async def delete_server(session: AsyncSession, server_id: int) -> None:
    """The server is forgotten; nothing is changed on it.

    Raises:
        ServerNotFoundError: there is none.
        ServerInUseError: clients stand on it.
    """
    server = await get_server(session, server_id, lock=True)
    count = await session.scalar(select(func.count()).select_from(Client).where(Client.server_id == server_id))
    if count:
        raise ServerInUseError(f"{count} clients stand on {server.name}; move or delete them first.")
    for kept, what in ((Place, "clients that moved away"), (Backup, "back-ups")):
        if await session.scalar(select(func.count()).select_from(kept).where(kept.server_id == server_id)):
            raise ServerInUseError(f"{server.name} still keeps data of {what}; remove that, or wait for its time.")
    await session.delete(server)
    await session.flush()


async def shut_off(session: AsyncSession, server_id: int, *, pinned: str | None = None) -> None:
    """Nothing is done on this server until its host key is pinned anew.

    Args:
        pinned: the key that was not shown; where another one has been pinned since, nothing happens.
    """
    which = update(Server).where(Server.id == server_id)
    if pinned is not None:
        which = which.where(Server.host_key == pinned)
    await session.execute(which.values(host_key_changed=True, reachable=False))


@asynccontextmanager
async def shutting_off(sessions: SessionFactory, address: Address) -> AsyncIterator[None]:
    """A look at a server; one that shows another host key than the pinned one is shut off."""
    try:
        yield
    except HostKeyChangedError:
        async with sessions.begin() as session:
            await shut_off(session, address.server_id, pinned=address.host_key)
        raise


def check_usable(server: Server) -> None:
    """Nothing, where the server may be spoken to.

    Raises:
        HostKeyChangedError: it showed another key.
    """
    if server.host_key_changed:
        raise HostKeyChangedError(f"{server.name} showed another host key than the pinned one; pin it anew first.")


async def remember_images(session: AsyncSession, server_id: int, images: list[Image]) -> None:
    """The images of the last look are kept, for when the server does not answer."""
    await session.execute(
        update(Server)
        .where(Server.id == server_id)
        .values(
            images=[asdict(image) for image in images],
            images_at=func.clock_timestamp(),
            reachable=True,
            seen_at=func.clock_timestamp(),
        )
    )


CONNECTION_FIELDS: Final = frozenset({"host", "port", "username", "host_key", "database_engine", "tls"})
"""A change of any of these is only taken after a look."""


def changes_the_way(server: Server, values: Mapping[str, Any]) -> bool:
    """Whether a server must be looked at before these values are taken; where there are none, that is what is asked."""
    if not values or (server.host_key_changed and "host_key" in values):
        return True
    return any(values[name] != getattr(server, name) for name in CONNECTION_FIELDS & values.keys())


LOOKS: Final = count(1)
"""Numbers for connections to servers that have no id yet."""
LOOK_S: Final = 14.0
"""A registration is answered within 15 s."""

FIELD_OF_REASON: Final = {"refused": "port", "protocol": "port"}


async def enrol(pool: SshPool, wanted: Mapping[str, Any], repository: str) -> Enrolment:
    """What a first look at a server finds: one try, with its host key given or taken at this first contact.

    Raises:
        FieldError: which of the address, the port, the user or the key does not work.
    """
    host, port = str(wanted["host"]), int(wanted["port"])
    try:
        async with asyncio.timeout(LOOK_S):
            given = wanted.get("host_key")
            host_key = str(given) if given else await pool.fetch_host_key(host, port)
            address = Address(-next(LOOKS), host, port, str(wanted["username"]), host_key)
            engine, tls = DatabaseEngine(wanted["database_engine"]), Tls(wanted["tls"])
            try:
                found = await first_look(pool, address, engine, tls, repository)
            finally:
                await pool.drop(address.server_id)
    except TimeoutError as error:
        raise FieldError(
            "host", f"The server did not answer within {LOOK_S:g} s.", code="server_unreachable"
        ) from error
    except RemoteError as error:
        raise _field_error(error) from error
    return Enrolment(host_key, found.layout, found.findings, found.images)


def _field_error(error: RemoteError) -> FieldError:
    """The error of the field that a failed look is about."""
    if isinstance(error, HostKeyChangedError):
        return FieldError("host_key", error.detail, code=error.code)
    if isinstance(error, LoginRefusedError):
        detail = f"{error.detail} Put the line of GET /ssh_public_key into this user's authorized_keys on the server."
        return FieldError("username", detail, code=error.code)
    field = str(error.meta.get("field") or FIELD_OF_REASON.get(str(error.meta.get("reason")), "host"))
    return FieldError(field, error.detail, code=error.code)
