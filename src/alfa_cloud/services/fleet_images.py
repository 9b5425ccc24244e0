"""Which image of the fleet a wish means, and where it can be brought from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import FieldError
from alfa_cloud.models import Server
from alfa_cloud.remote.docker import Image, newest_first
from alfa_cloud.services.clients import CHANNELS

NAMED: Final = 10
NOT_IN_FLEET: Final = "image_not_in_fleet"


@dataclass(frozen=True, slots=True)
class Found:
    """An image of the fleet.

    Args:
        wish: as asked: a tag, REPOSITORY:TAG or a channel.
        reference: REPOSITORY:TAG.
        digest: its id.
    """

    wish: str
    reference: str
    digest: str


async def find(
    session: AsyncSession, wish: str, server_id: int, here: Sequence[Image], repository: str, *, field: str
) -> Found:
    """The image that a wish means now: on the client's own server, or else on any other one.

    Args:
        here: what is on the client's server.
        field: what the wish came by, for the error.

    Raises:
        FieldError: no image of the fleet is that, or it is not the app's; the message names those that are there.
    """
    others = [image for server in await _others(session, server_id) for image in images_of(server)]
    return resolve(wish, here, others, repository, field=field)


def resolve(wish: str, here: Sequence[Image], elsewhere: Sequence[Image], repository: str, *, field: str) -> Found:
    """See `find`; a channel means its newest image of all, and of equal ones that which is here.

    Raises:
        FieldError: see `find`.
    """
    own = [image for image in here if image.tag.rpartition(":")[0] == repository]
    others = [image for image in elsewhere if image.tag.rpartition(":")[0] == repository]
    if wish in CHANNELS:
        candidates = [image for image in (*own, *others) if image.branch == wish]
        image = max(candidates, key=lambda one: one.created_at, default=None)
    else:
        reference = wish if ":" in wish else f"{repository}:{wish}"
        if reference.rpartition(":")[0] != repository:
            raise FieldError(field, f"Only images of {repository} can be used.", code=NOT_IN_FLEET)
        image = next((one for one in (*own, *others) if one.tag == reference), None)
    if image is None:
        names = dict.fromkeys(one.tag.rpartition(":")[2] for one in newest_first((*own, *others)))
        known = f"There are: {', '.join([*names][:NAMED])}." if names else "There are none; build one first."
        raise FieldError(field, f"This image is on no server of the fleet. {known}", code=NOT_IN_FLEET)
    return Found(wish, image.tag, image.digest)


async def sources(session: AsyncSession, reference: str, server_id: int) -> list[Server]:
    """The other servers that had an image when they were last looked at, the likeliest to answer first."""
    return [
        server
        for server in await _others(session, server_id)
        if any(image.tag == reference for image in images_of(server))
    ]


def images_of(server: Server) -> list[Image]:
    """What a server had when it was last looked at."""
    return [Image(**row) for row in server.images]


async def _others(session: AsyncSession, server_id: int) -> list[Server]:
    query = (
        select(Server)
        .where(Server.id != server_id, Server.host_key_changed.is_(False))
        .order_by(Server.reachable.is_(False), Server.id)
    )
    return list(await session.scalars(query))
