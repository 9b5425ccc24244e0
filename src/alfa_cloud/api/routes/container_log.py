"""The log of a client's container."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from alfa_cloud.api.dependencies import IntId
from alfa_cloud.api.jsonapi.documents import Attributes, Document, Resource
from alfa_cloud.api.jsonapi.negotiation import Media
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.schemas.servers import KEY_CHANGED
from alfa_cloud.api.state import ServicesDep
from alfa_cloud.api.streams import Event, event_stream, offers, text_stream
from alfa_cloud.errors import AlfaCloudError
from alfa_cloud.services import container_log, servers

router = ApiRouter(tags=["clients"])

TailLines = Annotated[int, Query(ge=1, le=5000, description="How many of the last lines.")]
LogMedia = Annotated[Media, offers(Media.JSONAPI, Media.SSE, Media.TEXT)]


class ContainerLineValue(Attributes):
    """One line. Render it as text, never as HTML."""

    text: str


class ContainerLogAttributes(Attributes):
    """The last lines that a client's container has printed."""

    container: str = Field(examples=["alfa-hematology-app-a"])
    lines: list[ContainerLineValue]


class ContainerLogResource(Resource[Literal["container_logs"], ContainerLogAttributes]):
    """The log of a client's container; its id is the client's."""


class ContainerLogDocument(Document[ContainerLogResource]):
    """The log of a client's container."""


@router.get("/clients/{client_id}/container_log", response_model=ContainerLogDocument, responses=KEY_CHANGED)
async def read_container_log(
    client_id: IntId, services: ServicesDep, media: LogMedia, tail_lines: TailLines = 200
) -> Any:
    """The last lines of the app's container, as they are on its server now; 503 where that cannot be asked. As an
    event stream it goes on with the lines that come, for ten minutes; then ask again. 429 where four follow logs of
    that server already.
    """
    async with services.sessions() as session:
        source = await container_log.source_of(session, client_id, services.profile.app, services.vault)
    async with servers.shutting_off(services.sessions, source.address):
        if media is Media.SSE:
            services.followers.check(source.address)
            await container_log.check(services.pool, source)
            parts = container_log.follow(services.pool, source, tail_lines, services.followers)
            return event_stream(_events(parts))
        lines = await container_log.read(services.pool, source, tail_lines)
    if media is Media.TEXT:
        return text_stream(_texts(lines))
    values = [ContainerLineValue(text=line) for line in lines]
    attributes = ContainerLogAttributes(container=source.container, lines=values)
    link = f"/clients/{client_id}/container_log"
    return ContainerLogDocument.of(ContainerLogResource.make(client_id, attributes, link=link))


async def _texts(lines: list[str]) -> AsyncIterator[str]:
    for line in lines:
        yield line


async def _events(parts: AsyncGenerator[list[str], None]) -> AsyncIterator[Event]:
    """Each line as an event; at the end one that says why."""
    reason = ""
    try:
        async with aclosing(parts) as found:
            async for part in found:
                for line in part:
                    yield Event(None, "line", {"text": line})
    except AlfaCloudError as error:
        reason = error.detail
    yield Event(None, "ended", {"reason": reason})
