"""Plans of operations on one client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientNotFoundError
from alfa_cloud.models import Client, Server
from alfa_cloud.playbooks.client_commands import change_page, reboot_client, set_owner_password
from alfa_cloud.playbooks.create_client import create_client
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.services.client_specs import client_secrets, client_spec, cloud_settings, with_settings
from alfa_cloud.services.plans.plan import Maker, Plan, Site, Tools, Work
from alfa_cloud.services.plans.servers import server_of
from alfa_cloud.specs import ClientSecrets, ClientSpec, CloudSettings, OperationKind, PageKind


@dataclass(frozen=True, slots=True)
class Subject:
    """A client with all that playbooks take of it."""

    client: Client
    server: Server
    spec: ClientSpec
    secrets: ClientSecrets
    settings: CloudSettings

    def plan(self, playbook: Playbook, work: Work) -> Plan:
        """A plan on the client's server, which shows none of its secrets."""
        own = (self.secrets.app_key, self.secrets.database_password, self.secrets.owner_password)
        hidden = (*(secret for secret in own if secret is not None), *work.secrets.values())
        return Plan(playbook, Site.of(self.server), hidden)


async def subject_of(session: AsyncSession, work: Work, tools: Tools) -> Subject:
    """The client that an operation is about.

    Raises:
        NotFoundError: it or its server is gone.
    """
    server = await server_of(session, work)
    client = None if work.client_id is None else await session.get(Client, work.client_id)
    if client is None:
        raise ClientNotFoundError(f"The operation's client {work.client_id} is gone.")
    return Subject(
        client,
        server,
        client_spec(client, server, tools.profile.app),
        client_secrets(client, tools.vault),
        cloud_settings(client),
    )


def certbot_of(tools: Tools) -> dict[str, Any]:
    """What certbot is told."""
    return {"certbot_email": tools.profile.certbot_email, "certbot_server": tools.profile.certbot_server}


async def reboot(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client's container is started anew."""
    found = await subject_of(session, work, tools)
    return found.plan(reboot_client(found.spec), work)


async def enable_maintenance(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """The maintenance page stands for a client; one whose term has ended keeps that page."""
    found = await subject_of(session, work, tools)
    after = found.spec
    if not found.client.blocked:
        after = replace(
            after,
            page=PageKind.MAINTENANCE,
            page_text=work.params.get("page_text") or "",
            page_ends_at=work.params.get("ends_at") or "",
        )
    new = with_settings(found.settings, maintenance="1")
    return found.plan(change_page(found.spec, after, found.secrets, found.settings, new), work)


async def disable_maintenance(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client is served again; one whose term has ended keeps that page."""
    found = await subject_of(session, work, tools)
    after = replace(found.spec, page=PageKind.EXPIRED if found.client.blocked else None, page_text="", page_ends_at="")
    new = with_settings(found.settings, maintenance="0")
    return found.plan(change_page(found.spec, after, found.secrets, found.settings, new), work)


async def owner_password(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """The laboratory's administrator gets the password that the operation was given."""
    found = await subject_of(session, work, tools)
    return found.plan(set_owner_password(found.spec, work.secrets["password"]), work)


async def create(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client comes to life."""
    found = await subject_of(session, work, tools)
    playbook = create_client(
        found.spec,
        found.secrets,
        found.settings,
        min_free_bytes=tools.profile.min_free_bytes,
        **certbot_of(tools),
    )
    return found.plan(playbook, work)


MAKERS: Final[Mapping[OperationKind, Maker]] = {
    OperationKind.CREATE_CLIENT: create,
    OperationKind.REBOOT_CLIENT: reboot,
    OperationKind.ENABLE_MAINTENANCE: enable_maintenance,
    OperationKind.DISABLE_MAINTENANCE: disable_maintenance,
    OperationKind.SET_OWNER_PASSWORD: owner_password,
}
