"""Images of the app on servers: a bounded look, with the last one to fall back on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import HostKeyChangedError, HostUnreachableError, RemoteError
from alfa_cloud.models import Client, Operation, Server
from alfa_cloud.remote import docker
from alfa_cloud.remote.docker import Image
from alfa_cloud.remote.look import busy_ports, host_to_look_at, list_images
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services.operations import UNFINISHED, database_now
from alfa_cloud.specs import Address, ClientStatus, Layout

LOOK_S: Final = 8.0


class ServerUnavailableError(HostUnreachableError):
    """The server could not be asked just now."""

    status = 503
    code = "server_unavailable"


@dataclass(frozen=True, slots=True)
class Place:
    """What a server offers a new client.

    Args:
        fresh: whether the server itself was asked; else it is what the last look found.
    """

    images: tuple[Image, ...]
    busy_ports: frozenset[int]
    fresh: bool


async def look(pool: SshPool, address: Address, layout: Layout, repository: str) -> list[Image]:
    """The images on a server now, the newest first.

    Raises:
        ServerUnavailableError: it could not be asked in time.
        HostKeyChangedError: it shows another key than the pinned one.
    """
    try:
        async with asyncio.timeout(LOOK_S):
            return await list_images(host_to_look_at(pool, address, layout), repository)
    except HostKeyChangedError:
        raise
    except (RemoteError, TimeoutError) as error:
        words = error.detail if isinstance(error, RemoteError) else f"no answer within {LOOK_S:g} s"
        raise ServerUnavailableError(f"The server's images cannot be listed: {words}") from error


async def look_at_place(pool: SshPool, server: Server, repository: str) -> Place:
    """What a server offers a new client: now, or else at the last look.

    Raises:
        HostKeyChangedError: it shows another key than the pinned one.
    """
    host = host_to_look_at(pool, server.address, server.layout_spec)
    try:
        async with asyncio.timeout(LOOK_S):
            images, ports = await asyncio.gather(list_images(host, repository), busy_ports(host))
    except HostKeyChangedError:
        raise
    except (RemoteError, TimeoutError):
        return Place(tuple(Image(**row) for row in server.images), frozenset(), fresh=False)
    return Place(tuple(images), frozenset(ports), fresh=True)


async def users_of(session: AsyncSession, server_id: int) -> dict[str, list[int]]:
    """Which clients of a server use which image, by REPOSITORY:TAG."""
    rows = await session.execute(
        select(Client.id, Client.image_ref)
        .where(Client.server_id == server_id, Client.status != ClientStatus.ARCHIVED)
        .order_by(Client.id)
    )
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row.image_ref, []).append(row.id)
    return found


async def needed(session: AsyncSession, server_id: int, repository: str) -> frozenset[str]:
    """Every REPOSITORY:TAG that a client of a server runs or ran before, or any operation names that is to be done.

    An image may be fetched from another server of the fleet: so operations count wherever they are.
    """
    names: set[str] = set()
    clients = select(Client.image_ref, Client.former_image_ref).where(
        Client.server_id == server_id, Client.status != ClientStatus.ARCHIVED
    )
    for row in await session.execute(clients):
        names.update(row)
    for params in await session.scalars(select(Operation.params).where(Operation.state.in_(UNFINISHED))):
        names.update(_texts_in(params))
    return frozenset(text if ":" in text else f"{repository}:{text}" for text in names if text)


async def would_go(session: AsyncSession, server_ids: Collection[int], repository: str) -> list[dict[str, Any]]:
    """What a prune would remove from each of these servers, as each was at its last look, and how long ago that was.

    What only a container uses is not known from here: it stays as well.
    """
    rows = await session.scalars(select(Server).where(Server.id.in_(server_ids)).order_by(Server.id))
    now = await database_now(session)
    found = []
    for server in rows:
        here = [image for row in server.images if (image := Image(**row)).tag.rpartition(":")[0] == repository]
        going = docker.unneeded(here, await needed(session, server.id, repository))
        found.append(
            {
                "server": server.name,
                "server_id": str(server.id),
                "images": [image.tag for image in going],
                "age_s": None if server.images_at is None else round((now - server.images_at).total_seconds()),
            }
        )
    return found


def _texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(part)


def prunable(image: Image, images: Sequence[Image], needed_images: Collection[str]) -> bool:
    """Whether nobody needs an image, and it is not among its branch's newest."""
    return image in docker.unneeded(images, needed_images)
