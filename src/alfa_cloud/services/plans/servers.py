"""Plans of operations on a whole server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ServerNotFoundError
from alfa_cloud.models import Client, Operation, Server
from alfa_cloud.playbooks.prepare_server import prepare_server
from alfa_cloud.playbooks.provision_server import provision_server
from alfa_cloud.playbooks.reboot_server import reboot_server
from alfa_cloud.services.plans.plan import Maker, Plan, Site, Tools, Work
from alfa_cloud.specs import ClientStatus, OperationKind, Tls


async def server_of(session: AsyncSession, work: Work) -> Server:
    """The server that an operation is about.

    Raises:
        ServerNotFoundError: it is gone.
    """
    server = None if work.server_id is None else await session.get(Server, work.server_id)
    if server is None:
        raise ServerNotFoundError(f"The operation's server {work.server_id} is gone.")
    return server


async def prepare(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """What is the product's own on a server is made or mended."""
    server = await server_of(session, work)
    playbook = prepare_server(server.layout_spec, server.engine, Tls(server.tls), tools.profile.min_free_bytes)
    return Plan(playbook, Site.of(server))


async def provision(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A bare server gets what clients need."""
    server = await server_of(session, work)
    playbook = provision_server(server.layout_spec, server.engine, Tls(server.tls), tools.profile.min_free_bytes)
    return Plan(playbook, Site.of(server))


async def reboot(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A server boots anew; the clients that answer now, or did before an earlier attempt, are to answer again."""
    server = await server_of(session, work)
    kept = await _result_of(session, work)
    domains = kept["domains"] if "domains" in kept else await _available_domains(session, server.id)
    deadline_s = tools.profile.reboot_deadline_s
    return Plan(reboot_server(domains, deadline_s=deadline_s, under_way="rebooted_from" in kept), Site.of(server))


async def _result_of(session: AsyncSession, work: Work) -> Mapping[str, Any]:
    """What an earlier attempt at this operation reported."""
    if work.operation_id is None:
        return {}
    return await session.scalar(select(Operation.result).where(Operation.id == work.operation_id)) or {}


async def _available_domains(session: AsyncSession, server_id: int) -> list[str]:
    alive = Client.status.in_((ClientStatus.ACTIVE, ClientStatus.EXPIRED))
    found = await session.scalars(
        select(Client.domain).where(Client.server_id == server_id, alive, Client.available).order_by(Client.domain)
    )
    return list(found)


MAKERS: Final[Mapping[OperationKind, Maker]] = {
    OperationKind.PREPARE_SERVER: prepare,
    OperationKind.PROVISION_SERVER: provision,
    OperationKind.REBOOT_SERVER: reboot,
}
