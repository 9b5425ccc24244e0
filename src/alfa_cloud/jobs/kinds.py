"""Which playbook each kind of operation runs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientNotFoundError, HostKeyChangedError, ServerNotFoundError
from alfa_cloud.models import Client, Server
from alfa_cloud.playbooks.create_client import create_client, update_client
from alfa_cloud.playbooks.delete_client import delete_unborn_client
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.prepare_server import prepare_server
from alfa_cloud.services import clients
from alfa_cloud.services.client_specs import client_secrets, client_spec, cloud_settings
from alfa_cloud.services.operations import Claim
from alfa_cloud.specs import Address, AppProfile, DatabaseEngine, Layout, OperationKind, Secret, Tls
from alfa_cloud.vault import Vault


@dataclass(frozen=True, slots=True)
class Profile:
    """What playbooks take from the settings."""

    app: AppProfile
    min_free_bytes: int
    certbot_email: str = ""
    certbot_server: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a claimed operation is to do, and where."""

    playbook: Playbook
    address: Address
    layout: Layout
    engine: DatabaseEngine
    tls: Tls
    secrets: tuple[Secret, ...]
    """What must not be seen in the log."""


async def make_plan(session: AsyncSession, claim: Claim, vault: Vault, profile: Profile) -> Plan:
    """The plan of a claimed operation, from its subject's present attributes.

    Raises:
        NotFoundError: the subject is gone.
        HostKeyChangedError: the server is shut off until its key is pinned anew.
    """
    server = None if claim.server_id is None else await session.get(Server, claim.server_id)
    if server is None:
        raise ServerNotFoundError(f"The operation's server {claim.server_id} is gone.")
    if server.host_key_changed:
        raise HostKeyChangedError(f"{server.name} showed another host key than the pinned one.")
    if claim.kind is OperationKind.PREPARE_SERVER:
        playbook = prepare_server(server.layout_spec, server.engine, Tls(server.tls))
        return _plan_for(server, playbook)
    return await _client_plan(session, claim, server, vault, profile)


async def _client_plan(session: AsyncSession, claim: Claim, server: Server, vault: Vault, profile: Profile) -> Plan:
    client = None if claim.client_id is None else await session.get(Client, claim.client_id)
    if client is None:
        raise ClientNotFoundError(f"The operation's client {claim.client_id} is gone.")
    spec, secrets, settings = (
        client_spec(client, server, profile.app),
        client_secrets(client, vault),
        cloud_settings(client),
    )
    email, directory = profile.certbot_email, profile.certbot_server
    match claim.kind:
        case OperationKind.CREATE_CLIENT:
            playbook = create_client(
                spec,
                secrets,
                settings,
                min_free_bytes=profile.min_free_bytes,
                certbot_email=email,
                certbot_server=directory,
            )
        case OperationKind.UPDATE_CLIENT if client.activated_at is None:
            playbook = Playbook([])
        case OperationKind.UPDATE_CLIENT:
            playbook = update_client(
                spec,
                secrets,
                settings,
                certbot_email=email,
                certbot_server=directory,
                new_owner="owner_login" in claim.params.get("changed", ()),
            )
        case OperationKind.DELETE_CLIENT:
            clients.check_never_alive(client)
            playbook = delete_unborn_client(spec, secrets)
        case _:
            raise ValueError(f"{claim.kind} is no kind of a client's operation")
    hidden = [secrets.app_key, secrets.database_password, *([secrets.owner_password] if secrets.owner_password else [])]
    return _plan_for(server, playbook, *hidden)


def _plan_for(server: Server, playbook: Playbook, *secrets: Secret) -> Plan:
    return Plan(playbook, server.address, server.layout_spec, server.engine, Tls(server.tls), secrets)
