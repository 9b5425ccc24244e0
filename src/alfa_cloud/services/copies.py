"""Copies of clients on stage servers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientStateError, FieldError
from alfa_cloud.models import Client, Operation, Server
from alfa_cloud.services import client_commands, clients, operations, servers
from alfa_cloud.services.client_specs import secret_place
from alfa_cloud.services.operations import UNFINISHED, Caller
from alfa_cloud.specs import AppProfile, ClientStatus, OperationKind, ServerRole
from alfa_cloud.vault import Vault, new_password

SUFFIX: Final = "-copy"
MAX_NAME: Final = 40
DEADLINE_S: Final = 24 * 3600.0


async def request_copy(
    session: AsyncSession,
    client_id: int,
    server_id: int,
    caller: Caller,
    *,
    name: str,
    scrub: bool,
    busy_ports: Collection[int],
    app: AppProfile,
    vault: Vault,
) -> Operation:
    """The operation that copies a client to a stage server, as a client of its own.

    Args:
        name: the copy's; empty for the client's with `-copy` behind.
        scrub: whether personal data is taken out of it.
        busy_ports: what something on that server listens on.

    Raises:
        ClientNotFoundError, FieldError: there is no such client, no such server, or the name does not do.
        ConflictError: the server is no stage server, has another database system, or cannot take it; the name is taken.
    """
    client = await clients.get_client(session, client_id, lock=True)
    name = name or client.name[: MAX_NAME - len(SUFFIX)].rstrip("-") + SUFFIX
    under_way = await _under_way(session, client_id, server_id, name)
    if under_way is not None:
        return under_way
    target = await _stage_for(session, client, server_id)
    if scrub and not app.scrub:
        raise FieldError("scrub", "The app profile has no command for that (ALFA_APP__SCRUB).")
    ports = await clients.free_ports(session, target, busy_ports, 2)
    copy = await _new_client(session, client, target, name, ports)
    _seal(client, copy, vault)
    operation, _ = await operations.request(
        session,
        OperationKind.COPY_CLIENT,
        caller,
        client_id=copy.id,
        server_id=target.id,
        other_server_id=None if client.server_id == target.id else client.server_id,
        params={"source_id": client.id, "name": name, "scrub": scrub},
        deadline_s=DEADLINE_S,
    )
    copy.operation_id = operation.id
    await session.flush()
    return operation


async def _under_way(session: AsyncSession, client_id: int, server_id: int, name: str) -> Operation | None:
    query = select(Operation).where(
        Operation.kind == OperationKind.COPY_CLIENT,
        Operation.state.in_(UNFINISHED),
        Operation.server_id == server_id,
        Operation.params["source_id"].as_integer() == client_id,
        Operation.params["name"].as_string() == name,
    )
    return await session.scalar(query.limit(1))


async def _stage_for(session: AsyncSession, client: Client, server_id: int) -> Server:
    reason = client_commands.why_not(client, OperationKind.COPY_CLIENT)
    if reason is not None:
        raise ClientStateError(reason)
    target = await clients.server_for(session, server_id)
    source = await session.get_one(Server, client.server_id)
    servers.check_usable(source)
    if target.role != ServerRole.STAGE:
        raise ClientStateError(f"{target.name} is no stage server; copies are made on those alone.")
    if source.database_engine != target.database_engine:
        raise ClientStateError(
            f"{client.name} has its data in {source.database_engine}, and {target.name} has {target.database_engine}."
        )
    return target


async def _new_client(session: AsyncSession, client: Client, target: Server, name: str, ports: Sequence[int]) -> Client:
    await clients.check_name(session, name, f"{name}.{target.base_domain}")
    copy = Client(
        name=name,
        title=client.title,
        email=client.email,
        locale=client.locale,
        owner_login=client.owner_login,
        max_resources=client.max_resources,
        turbostart=client.turbostart,
        tutorial=client.tutorial,
        demo=client.demo,
        domain=clients.normal_domain(f"{name}.{target.base_domain}", field="name"),
        server_id=target.id,
        image=client.image,
        image_ref=client.image_ref,
        status=ClientStatus.CREATING,
        copy_of=client.name,
        port=ports[0],
        spare_port=ports[1],
        app_key=b"",
        database_password=b"",
    )
    session.add(copy)
    await session.flush()
    return copy


def _seal(client: Client, copy: Client, vault: Vault) -> None:
    """The copy can read what the original's application encrypted; its database has a password of its own."""
    key = vault.open(client.app_key, secret_place("app_key", client))
    copy.app_key = vault.seal(key, secret_place("app_key", copy))
    copy.database_password = vault.seal(new_password(), secret_place("database_password", copy))
