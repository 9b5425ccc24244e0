"""Plans that replace a client's container, or migrate its database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientStateError
from alfa_cloud.models import Client, Operation
from alfa_cloud.playbooks.create_client import update_client
from alfa_cloud.playbooks.migrate_client import migrate_client, switch_and_migrate
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.image import EnsureImage, Source
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.playbooks.switch_client import Web, roll_out
from alfa_cloud.services import fleet_images
from alfa_cloud.services.client_specs import former_settings, former_spec, with_settings
from alfa_cloud.services.plans.clients import Subject, certbot_of, subject_of
from alfa_cloud.services.plans.plan import Maker, Plan, Site, Tools, Work
from alfa_cloud.specs import OperationKind, OperationState


async def switch(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client runs from another image; with `run_migrate` its database has that image's tables."""
    found = await subject_of(session, work, tools)
    return found.plan(await _to_image(session, found, work, tools, deploys=False), work)


async def deploy(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """All of a client's configuration is as it should be, and it runs from the image that it should."""
    found = await subject_of(session, work, tools)
    return found.plan(await _to_image(session, found, work, tools, deploys=True), work)


async def _to_image(session: AsyncSession, found: Subject, work: Work, tools: Tools, *, deploys: bool) -> Playbook:
    reference = work.params.get("image_ref") or found.client.image_ref
    version = reference.rpartition(":")[2]
    after = replace(found.spec, image=reference, version=version)
    rollout = RollOut(found.spec, after, found.secrets, restart=bool(work.params.get("restart")))
    check_places(found.client)
    image = await image_from(session, tools, reference, found.server.id, work.params.get("digest") or "")
    new = with_settings(found.settings, version=version)
    changed = reference != found.client.image_ref
    if work.params.get("run_migrate") and (not deploys or changed or found.client.migration_pending):
        return switch_and_migrate(
            rollout,
            found.settings,
            new,
            image=image,
            dump=dump_name(work),
            min_free_bytes=tools.profile.min_free_bytes,
            note_drift=deploys,
        )
    web = Web(**certbot_of(tools)) if deploys else None
    return roll_out(rollout, found.settings, new, image=image, web=web, note_drift=deploys)


async def image_from(
    session: AsyncSession, tools: Tools, reference: str, server_id: int, digest: str = ""
) -> EnsureImage:
    """An image comes to a server, from whichever others have it."""
    servers = await fleet_images.sources(session, reference, server_id)
    sources = tuple(Source(server.name, tools.open_host(Site.of(server))) for server in servers)
    return EnsureImage(reference, digest, sources)


async def update(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """What was changed of a client is on its server; one that is not alive has nothing there.

    Raises:
        ClientStateError: it is to have a new administrator, and no password for one is kept any more.
    """
    found = await subject_of(session, work, tools)
    if found.client.activated_at is None:
        return found.plan(Playbook([]), work)
    check_places(found.client)
    new_owner = "owner_login" in work.params.get("changed", ())
    if new_owner and found.secrets.owner_password is None:
        raise ClientStateError(
            f"The password for the new administrator {found.client.owner_login} was erased when its letter left. "
            "Send owner_password, which makes the administrator; a deployment brings what else was changed."
        )
    former = await _former(session, work)
    playbook = update_client(
        RollOut(former_spec(found.spec, former), found.spec, found.secrets),
        former_settings(found.settings, former),
        found.settings,
        new_owner=new_owner,
        **certbot_of(tools),
    )
    return found.plan(playbook, work)


async def _former(session: AsyncSession, work: Work) -> Mapping[str, Any]:
    """What an update changes, as its server still has it; nothing once a later roll-out has brought it there."""
    if "since" not in work.params:
        return {}
    since = datetime.fromisoformat(work.params["since"])
    kinds = (OperationKind.UPDATE_CLIENT, OperationKind.DEPLOY_CLIENT, OperationKind.SWITCH_CLIENT)
    there = await session.scalar(
        select(Operation.id)
        .where(Operation.client_id == work.client_id, Operation.kind.in_(kinds), Operation.started_at > since)
        .where(Operation.state == OperationState.OK)
        .limit(1)
    )
    return {} if there else work.params["former"]


async def migrate(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client's database has the tables of its version."""
    found = await subject_of(session, work, tools)
    playbook = migrate_client(
        RollOut(found.spec, found.spec, found.secrets, in_place=True),
        found.settings,
        dump=dump_name(work),
        min_free_bytes=tools.profile.min_free_bytes,
    )
    return found.plan(playbook, work)


def check_places(client: Client) -> None:
    """Nothing, where a client has both of its places.

    Raises:
        ClientStateError: it has not; sending the command again gives it the second one.
    """
    if client.port is None or client.spare_port is None:
        raise ClientStateError(f"{client.name} has no port for a second container; send the command again.")


def dump_name(work: Work) -> str:
    """The name of an operation's own dump."""
    return f"before-{work.operation_id}"


MAKERS: Final[Mapping[OperationKind, Maker]] = {
    OperationKind.SWITCH_CLIENT: switch,
    OperationKind.DEPLOY_CLIENT: deploy,
    OperationKind.UPDATE_CLIENT: update,
    OperationKind.MIGRATE_CLIENT: migrate,
}
