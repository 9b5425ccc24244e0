"""Clients: created after checks, changed, listed, deleted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time
from itertools import islice
from typing import Any, Final

import idna
from sqlalchemy import Select, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import (
    ClientDomainTakenError,
    ClientNameTakenError,
    ClientNotFoundError,
    ClientStateError,
    FieldError,
    OperationNotFoundError,
    ServerFullError,
    ServerNotReadyError,
)
from alfa_cloud.models import Client, ExpireDate, Operation, Place, Server
from alfa_cloud.remote.docker import Image
from alfa_cloud.services import operations, servers
from alfa_cloud.services.client_specs import secret_place
from alfa_cloud.services.listing import (
    MAX_ID,
    FilterError,
    ListQuery,
    Page,
    escape_like,
    fetch_page,
    parse_ids,
    parse_words,
)
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import ClientStatus, OperationKind, Secret, ServerRole, fingerprint
from alfa_cloud.vault import Vault, new_app_key, new_password

RESERVED_NAMES: Final = frozenset(
    {"admin", "alfa", "api", "app", "archive", "default", "docker", "localhost", "mail", "mol", "root", "server", "www"}
)
CHANNELS: Final = ("dev", "master")

SORTS: Final = {
    name: getattr(Client, name)
    for name in (
        "id", "name", "title", "email", "locale", "domain", "owner_login", "image", "version", "status", "available",
        "available_at", "maintenance", "blocked", "demo", "turbostart", "tutorial", "expire_date", "users_count",
        "migration_pending", "dns_ok", "users_counted_at", "last_backup_at", "last_proven_at", "created_at",
        "updated_at",
    )
}  # fmt: skip
FLAGS: Final = ("available", "maintenance", "demo", "blocked", "migration_pending")
DAYS: Final = ("expires_before", "expires_after", "backup_older_than")
FILTERS: Final = ("q", "status", "server", "image", "version", *FLAGS, *DAYS)

CHANGEABLE: Final = (ClientStatus.CREATING, ClientStatus.ACTIVE, ClientStatus.EXPIRED, ClientStatus.FAILED)
UPDATABLE: Final = ("title", "email", "locale", "domain", "owner_login", "max_resources", "turbostart", "tutorial")


async def get_client(session: AsyncSession, client_id: int, *, lock: bool = False) -> Client:
    """The client.

    Raises:
        ClientNotFoundError: there is none.
    """
    client = await session.get(Client, client_id, with_for_update=lock) if client_id <= MAX_ID else None
    if client is None:
        raise ClientNotFoundError(f"There is no client {client_id}.")
    return client


async def list_clients(session: AsyncSession, asked: ListQuery) -> Page[Client]:
    """A page of clients; archived ones only where `filter[status]` names them.

    Raises:
        FilterError: a filter's value is of the wrong form.
    """
    query = filtered(asked.filters)
    return await fetch_page(session, query, asked, sorts=SORTS, default=(("name", False),), tie=Client.id)


def filtered(filters: Mapping[str, str]) -> Select[tuple[Client]]:
    """The clients that a list's filters choose; archived ones only where `status` names them.

    Raises:
        FilterError: a filter's value is of the wrong form.
    """
    query: Select[tuple[Client]] = select(Client)
    if "status" in filters:
        query = query.where(Client.status.in_(parse_words("status", filters["status"], ClientStatus)))
    else:
        query = query.where(Client.status != ClientStatus.ARCHIVED)
    if filters.get("q"):
        pattern = f"%{escape_like(filters['q'])}%"
        columns = (Client.name, Client.title, Client.domain, Client.email)
        query = query.where(or_(*(column.ilike(pattern, escape="\\") for column in columns)))
    if "server" in filters:
        query = query.where(Client.server_id.in_(parse_ids("server", filters["server"])))
    for name in ("image", "version"):
        if name in filters:
            query = query.where(getattr(Client, name).in_(filters[name].split(",")))
    for name in FLAGS:
        if name in filters:
            query = query.where(getattr(Client, name).is_(_flag(name, filters[name])))
    return _by_days(query, filters)


def _by_days(query: Select[tuple[Client]], filters: Mapping[str, str]) -> Select[tuple[Client]]:
    """A day of a moment begins at midnight UTC."""
    days = {name: _day(name, filters[name]) for name in DAYS if name in filters}
    if "expires_before" in days:
        query = query.where(Client.expire_date < days["expires_before"])
    if "expires_after" in days:
        query = query.where(Client.expire_date > days["expires_after"])
    if "backup_older_than" in days:
        older = Client.last_backup_at < datetime.combine(days["backup_older_than"], time(), UTC)
        query = query.where(or_(older, Client.last_backup_at.is_(None)))
    return query


def _flag(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise FilterError(name, "Give true or false.")
    return text == "true"


def _day(name: str, text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.isoformat() != text:
        raise FilterError(name, "Give a date as YYYY-MM-DD.")
    return found


def normal_domain(domain: str, *, field: str = "domain") -> str:
    """A domain in the form that goes to nginx and certbot: lower-case A-labels.

    Args:
        field: what the domain is made of, for the error.

    Raises:
        FieldError: it is no domain name.
    """
    try:
        ascii_form = idna.encode(domain.strip().rstrip("."), uts46=True, std3_rules=True).decode()
    except (idna.IDNAError, UnicodeError) as error:
        raise FieldError(field, "This is not a domain name, and no part of one.") from error
    labels = ascii_form.split(".")
    if len(ascii_form) > 253 or len(labels) < 2 or labels[-1].isdecimal():
        raise FieldError(field, "A full domain name of at most 253 characters is needed, such as lab.example.org.")
    return ascii_form


def resolve_image(wish: str | None, images: Sequence[Image], role: str, repository: str) -> tuple[str, str]:
    """What was asked for, and the REPOSITORY:TAG that it means now.

    Args:
        wish: a tag, REPOSITORY:TAG, or a channel; None is the server's usual channel's newest tag.
        images: what is on the server, the newest first.

    Raises:
        FieldError: no image on the server is that; the message lists those that are there.
    """
    if wish is None:
        channel = "dev" if role == ServerRole.STAGE else "master"
        newest = next((image for image in images if image.branch == channel), None)
        if newest is None:
            detail = f"No image of branch {channel} is on the server. {_candidates(images)}"
            raise FieldError("image", detail, code="image_not_on_server")
        return newest.tag.rpartition(":")[2], newest.tag
    if wish in CHANNELS:
        found = next((image for image in images if image.branch == wish), None)
    else:
        reference = wish if ":" in wish else f"{repository}:{wish}"
        found = next((image for image in images if image.tag == reference), None)
    if found is None:
        raise FieldError("image", f"This image is not on the server. {_candidates(images)}", code="image_not_on_server")
    return wish, found.tag


def _candidates(images: Sequence[Image]) -> str:
    names = ", ".join(image.tag.rpartition(":")[2] for image in images[:10])
    return f"There are: {names}." if names else "There are none; build one first."


async def create_client(
    session: AsyncSession,
    values: Mapping[str, Any],
    *,
    images: Sequence[Image],
    busy_ports: set[int],
    repository: str,
    owner_password: Secret | None,
    vault: Vault,
    caller: Caller,
) -> tuple[Client, Operation]:
    """A client in status `creating`, with everything allocated, and the operation that brings it to life.

    Args:
        values: the attributes, checked for form; `server_id` among them.
        images: what is on the server.
        busy_ports: ports that something on the server listens on.

    Raises:
        FieldError: the server, image, name or domain does not do.
        ConflictError: the name or domain is taken, or the server cannot take another client.
    """
    server = await server_for(session, values["server_id"])
    given = values.get("domain")
    domain = normal_domain(given) if given else normal_domain(f"{values['name']}.{server.base_domain}", field="name")
    image, image_ref = resolve_image(values.get("image"), images, server.role, repository)
    await check_name(session, values["name"], domain)
    port, spare_port = await free_ports(session, server, busy_ports, 2)
    client = Client(
        **{key: value for key, value in values.items() if key not in ("domain", "image", "owner_login")},
        domain=domain,
        owner_login=values.get("owner_login") or values["email"],
        image=image,
        image_ref=image_ref,
        status=ClientStatus.CREATING,
        port=port,
        spare_port=spare_port,
        app_key=b"",
        database_password=b"",
    )
    session.add(client)
    await _flush(session, client)
    client.app_key = vault.seal(new_app_key(), secret_place("app_key", client))
    client.database_password = vault.seal(new_password(), secret_place("database_password", client))
    client.owner_password = vault.seal(owner_password or new_password(20), secret_place("owner_password", client))
    operation, _ = await operations.request(
        session, OperationKind.CREATE_CLIENT, caller, client_id=client.id, server_id=server.id
    )
    client.operation_id = operation.id
    if client.expire_date is not None:
        session.add(ExpireDate(client_id=client.id, new_date=client.expire_date, actor=caller.actor))
    await session.flush()
    await session.refresh(client)
    return client, operation


async def server_for(session: AsyncSession, server_id: int) -> Server:
    """A server that can take another client; its row is held.

    Raises:
        FieldError: there is none.
        ConflictError: it cannot.
    """
    server = await session.get(Server, server_id, with_for_update=True)
    if server is None:
        raise FieldError("server", f"There is no server {server_id}.")
    if not server.active:
        raise ServerNotReadyError(f"{server.name} is switched off for new clients.")
    servers.check_usable(server)
    if server.requirements_ok is False:
        missing = ", ".join(row["name"] for row in server.requirements if not row["ok"])
        raise ServerNotReadyError(f"{server.name} misses: {missing}. Mend that, then register it again with its id.")
    count = (await servers.count_clients(session, [server_id])).get(server_id, 0)
    if count >= server.max_clients:
        raise ServerFullError(f"{server.name} has {count} of at most {server.max_clients} clients.")
    return server


async def check_name(session: AsyncSession, name: str, domain: str) -> None:
    """Nothing, where a new client may have that name and that domain.

    Raises:
        FieldError: the name is reserved.
        ConflictError: one of them is taken.
    """
    if name in RESERVED_NAMES:
        raise FieldError("name", "This name is reserved; take another one.")
    there = Client.status != ClientStatus.ARCHIVED
    if await session.scalar(select(Client.id).where(Client.name == name, there)):
        raise ClientNameTakenError(f"A client named {name} is there already.")
    if await session.scalar(select(Client.id).where(Client.domain == domain, there)):
        raise ClientDomainTakenError(f"A client already answers under {domain}.")


async def reserve_spare_port(session: AsyncSession, client: Client, busy: Collection[int] = ()) -> None:
    """The client has a port for a second container, as those made before there was one have not."""
    if client.spare_port is None:
        server = await session.get_one(Server, client.server_id, with_for_update=True)
        client.spare_port = (await free_ports(session, server, busy, 1))[0]
        await session.flush()


async def free_ports(session: AsyncSession, server: Server, busy: Collection[int], count: int) -> list[int]:
    """The first ports of a server, whose row is held, that neither a client has nor anything listens on."""
    layout = server.layout_spec
    clients = select(Client.port, Client.spare_port).where(Client.server_id == server.id)
    places = select(Place.port, Place.spare_port).where(Place.server_id == server.id)
    taken = {port for row in await session.execute(clients.union_all(places)) for port in row} | set(busy)
    free = (port for port in range(layout.first_port, layout.last_port + 1) if port not in taken)
    found = list(islice(free, count))
    if len(found) < count:
        raise ServerFullError(f"{server.name} has no free port between {layout.first_port} and {layout.last_port}.")
    return found


async def _flush(session: AsyncSession, client: Client) -> None:
    name, domain = client.name, client.domain
    try:
        async with session.begin_nested():
            await session.flush()
    except IntegrityError as error:
        if "uq_clients_name" in str(error.orig):
            raise ClientNameTakenError(f"A client named {name} is there already.") from error
        if "uq_clients_domain" in str(error.orig):
            raise ClientDomainTakenError(f"A client already answers under {domain}.") from error
        raise


async def update_client(
    session: AsyncSession, client_id: int, values: Mapping[str, Any], caller: Caller
) -> tuple[Client, Operation | None]:
    """The changed client, and the operation that brings the change to its server; None where nothing changed.

    Raises:
        ClientNotFoundError: there is none.
        ClientStateError: its status does not allow a change.
        ConflictError, FieldError: the new domain is taken, or no domain.
    """
    client = await get_client(session, client_id, lock=True)
    if client.status not in CHANGEABLE:
        raise ClientStateError(f"{client.name} is {client.status}; it cannot be changed now.")
    wanted = {key: value for key, value in values.items() if key in UPDATABLE}
    if "domain" in wanted:
        wanted["domain"] = normal_domain(wanted["domain"])
    changed = {key: value for key, value in wanted.items() if getattr(client, key) != value}
    if "owner_login" in changed and client.owner_password is None:
        raise FieldError("owner_login", "A new administrator needs a password, and none is kept any more.")
    former = {key: getattr(client, key) for key in changed}
    for key, value in changed.items():
        setattr(client, key, value)
    await _flush(session, client)
    operation = None
    if changed and client.status != ClientStatus.FAILED:
        operation, _ = await operations.request(
            session,
            OperationKind.UPDATE_CLIENT,
            caller,
            client_id=client.id,
            server_id=client.server_id,
            params={
                "changed": sorted(changed),
                "values": fingerprint(changed),
                "former": former,
                "since": (await operations.database_now(session)).isoformat(),
            },
        )
        client.operation_id = operation.id
        await session.flush()
    await session.refresh(client)
    return client, operation


async def creations(session: AsyncSession, client_id: int) -> list[Operation]:
    """The operations that created a client, or tried to, in order: their logs are one log; at least one.

    Raises:
        OperationNotFoundError: none is kept.
    """
    rows = await session.scalars(
        select(Operation)
        .where(Operation.client_id == client_id, Operation.kind == OperationKind.CREATE_CLIENT)
        .order_by(Operation.created_at, Operation.id)
    )
    found = list(rows)
    if not found:
        raise OperationNotFoundError("The log of this client's creation is not kept.")
    return found


async def servers_of(session: AsyncSession, rows: Sequence[Client]) -> Sequence[Server]:
    """The servers that these clients stand on, each once."""
    found = await session.scalars(select(Server).where(Server.id.in_({row.server_id for row in rows})))
    return found.all()
