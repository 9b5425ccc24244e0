"""Plans of copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientNotFoundError
from alfa_cloud.models import Client, Server
from alfa_cloud.playbooks.copy_client import Original, copy_client
from alfa_cloud.playbooks.create_client import create_client
from alfa_cloud.playbooks.playbook import Elsewhere
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings
from alfa_cloud.services.client_specs import client_spec
from alfa_cloud.services.plans.clients import certbot_of, subject_of
from alfa_cloud.services.plans.plan import Maker, Plan, Site, Tools, Work
from alfa_cloud.services.plans.rollout import image_from
from alfa_cloud.specs import OperationKind


async def copy(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client's copy comes to life with its data.

    Raises:
        ClientNotFoundError: the original is gone.
    """
    found = await subject_of(session, work, tools)
    source = await session.get(Client, work.params["source_id"])
    if source is None:
        raise ClientNotFoundError("The client that was to be copied is gone.")
    server = await session.get_one(Server, source.server_id)
    original = Original(
        client_spec(source, server, tools.profile.app),
        Elsewhere(server.name, tools.open_host(Site.of(server))),
        Elsewhere(found.server.name, tools.open_host(Site.of(found.server))),
    )
    create = create_client(
        found.spec, found.secrets, found.settings, min_free_bytes=tools.profile.min_free_bytes, **certbot_of(tools)
    )
    playbook = copy_client(
        original,
        found.spec,
        create,
        login=EnsureCloudSettings(found.spec, found.secrets.database_password, found.settings),
        image=await image_from(session, tools, found.spec.image, found.server.id),
        name=f"copy-{work.operation_id}",
        min_free_bytes=tools.profile.min_free_bytes,
        scrub=bool(work.params.get("scrub")),
    )
    return found.plan(playbook, work)


MAKERS: Final[Mapping[OperationKind, Maker]] = {OperationKind.COPY_CLIENT: copy}
