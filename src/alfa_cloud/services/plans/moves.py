"""Plans of moves, and of taking away what they left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientNotFoundError, ClientStateError, ServerNotFoundError
from alfa_cloud.models import Client, Place, Server
from alfa_cloud.playbooks.delete_client import clear_data, delete_unborn_client
from alfa_cloud.playbooks.move_client import Move, move_client, undo_move
from alfa_cloud.playbooks.playbook import Elsewhere, Playbook
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.playbooks.steps.move import Commit
from alfa_cloud.playbooks.switch_client import Web
from alfa_cloud.services import operations, places
from alfa_cloud.services.client_specs import client_secrets, client_spec, cloud_settings
from alfa_cloud.services.plans.clients import certbot_of, subject_of
from alfa_cloud.services.plans.plan import Maker, Plan, Site, Tools, Work
from alfa_cloud.services.plans.rollout import image_from
from alfa_cloud.specs import ClientSpec, OperationKind, Slot


async def move(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client goes to another server with all its data."""
    found = await _way(session, work, tools)
    image = await image_from(session, tools, found.there.image, work.params["server_id"])
    playbook = move_client(found, image=image, name=_name(work), min_free_bytes=tools.profile.min_free_bytes)
    return await _plan(session, work, tools, playbook)


async def undo(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A moved client goes back to the server where its data of then is kept."""
    found = await _way(session, work, tools)
    playbook = undo_move(found, name=_name(work), min_free_bytes=tools.profile.min_free_bytes)
    return await _plan(session, work, tools, playbook)


async def clear(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """What a client has on a server that is not its own goes, as far as its time has come.

    Raises:
        ClientStateError: it stands there.
    """
    client, server = await _rows(session, work, work.server_id)
    if client.server_id == server.id:
        raise ClientStateError(f"{client.name} stands on {server.name}; nothing of it is taken away.")
    place = await session.get(Place, (client.id, server.id))
    if place is None or place.keep_until is None:
        return Plan(Playbook([Tell("Nothing of the client is to be taken away there")]), None)
    now = await operations.database_now(session)
    spec = at(client_spec(client, server, tools.profile.app), place)
    secrets = client_secrets(client, tools.vault)
    forwards = place.forward_until is not None and place.forward_until > now
    playbook = clear_data(spec, secrets) if forwards else delete_unborn_client(spec, secrets)
    told = Tell("What the client left here goes", {"cleared": "data" if forwards else "all"})
    return Plan(replace(playbook, steps=[*playbook.steps, told]), Site.of(server))


def _name(work: Work) -> str:
    return f"move-{work.operation_id}"


async def _plan(session: AsyncSession, work: Work, tools: Tools, playbook: Playbook) -> Plan:
    subject = await subject_of(session, work, tools)
    return subject.plan(playbook, work)


async def _rows(session: AsyncSession, work: Work, server_id: int | None) -> tuple[Client, Server]:
    client = None if work.client_id is None else await session.get(Client, work.client_id)
    if client is None:
        raise ClientNotFoundError(f"The operation's client {work.client_id} is gone.")
    server = None if server_id is None else await session.get(Server, server_id)
    if server is None:
        raise ServerNotFoundError(f"The operation's server {server_id} is gone.")
    return client, server


async def _way(session: AsyncSession, work: Work, tools: Tools) -> Move:
    """Both ends of a move, whichever of them the client's row says by now."""
    target_id = int(work.params["server_id"])
    client, source = await _rows(session, work, work.server_id)
    _, target = await _rows(session, work, target_id)
    committed = client.server_id == target_id
    host = tools.open_host(Site.of(target))

    async def is_done() -> bool:
        async with tools.sessions() as looking:
            return (await looking.get_one(Client, client.id)).server_id == target_id

    async def do() -> None:
        await tools.keep(lambda inner: places.change_over(inner, client.id, target_id, tools.profile.keeping))

    return Move(
        here=await _spec(session, client, source, tools),
        there=await _spec(session, client, target, tools),
        target=Elsewhere(target.name, host),
        secrets=client_secrets(client, tools.vault),
        settings=cloud_settings(client),
        web=Web(**certbot_of(tools)),
        commit=Commit(f"The client is on {target.name}", is_done, do),
        committed=committed,
    )


async def _spec(session: AsyncSession, client: Client, server: Server, tools: Tools) -> ClientSpec:
    """The client as it is on a server: its own, or one where it has a place.

    Raises:
        ClientStateError: it has nothing to do with that server any more.
    """
    spec = client_spec(client, server, tools.profile.app)
    if client.server_id == server.id:
        return spec
    place = await session.get(Place, (client.id, server.id))
    if place is None:
        raise ClientStateError(f"{client.name} has no place on {server.name} any more; send the command again.")
    return at(spec, place)


def at(spec: ClientSpec, place: Place) -> ClientSpec:
    """A client as it is in a place that is not its own server."""
    reference = place.image_ref or spec.image
    return replace(
        spec,
        slot=Slot(place.slot),
        port=place.port,
        spare_port=place.spare_port,
        image=reference,
        version=reference.rpartition(":")[2],
    )


MAKERS: Final[Mapping[OperationKind, Maker]] = {
    OperationKind.MOVE_CLIENT: move,
    OperationKind.UNDO_MOVE: undo,
    OperationKind.CLEAR_PLACE: clear,
}
