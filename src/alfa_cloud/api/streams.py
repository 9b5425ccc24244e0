"""Answers that go on: server-sent events and plain text, until their source or their client ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from alfa_cloud.api.jsonapi.errors import RequestError, bad_header
from alfa_cloud.api.jsonapi.negotiation import Media, dump_json

KEEP_ALIVE_S: Final = 15.0
KEEP_ALIVE: Final = b": keep-alive\n\n"

_EVENT_ID: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event.

    Args:
        id: what `Last-Event-ID` brings back; None for an event that nothing goes on from.
        event: its name; one line.
    """

    id: int | None
    event: str
    data: dict[str, Any]

    def encode(self) -> bytes:
        """The event as it is sent (WHATWG HTML, 9.2.6)."""
        head = "" if self.id is None else f"id: {self.id}\n"
        return f"{head}event: {self.event}\ndata: {dump_json(self.data)}\n\n".encode()


@dataclass(frozen=True)
class MediaReader:
    """Gives the form that the request wants, of those that the route offers."""

    offered: tuple[Media, ...]

    async def __call__(self, request: Request) -> Media:
        """The form chosen before the endpoint runs."""
        media: Media = request.state.media
        return media


def offers(*media: Media) -> Any:
    """A dependency that gives a `Media`; a route without it answers in JSON:API only.

    LogMedia = Annotated[Media, offers(Media.JSONAPI, Media.SSE, Media.TEXT)]
    """
    return Depends(MediaReader(media))


def last_event_id(request: Request) -> int | None:
    """Where a reader wants to go on; None from the beginning.

    Raises:
        RequestError: 400, it is no whole number.
    """
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return None
    if not _EVENT_ID.fullmatch(given):
        raise RequestError(bad_header("Last-Event-ID", "A whole number: the id of the last event that was read."))
    return int(given)


def event_stream(events: AsyncIterator[Event], *, keep_alive_s: float = KEEP_ALIVE_S) -> Response:
    """Server-sent events as they come, and a comment whenever none came for a while."""
    chunks = _with_keep_alive(events, keep_alive_s)
    return FollowedResponse(chunks, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def text_stream(lines: AsyncIterator[str]) -> Response:
    """Lines of plain text as they come."""
    return FollowedResponse(_with_ends(lines), media_type="text/plain", headers={"X-Accel-Buffering": "no"})


class FollowedResponse(StreamingResponse):
    """A stream that ends when its client goes, whatever the server's version of ASGI; no HEAD runs its source."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes until it ends or the client goes; the source is closed then."""
        if scope["method"] == "HEAD":
            await Response(headers=dict(self.headers))(scope, receive, send)
            return
        sending = asyncio.create_task(self.stream_response(send))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await sending
        except OSError:
            pass
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await _close(self.body_iterator)


async def _with_keep_alive(events: AsyncIterator[Event], keep_alive_s: float) -> AsyncIterator[bytes]:
    """Encoded events; the source runs in one task of its own, since a time-out must not cut it."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
    pump = asyncio.create_task(_pump(events, queue))
    try:
        while (chunk := await _next(queue, keep_alive_s)) is not None:
            yield chunk
        await pump
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(events: AsyncIterator[Event], queue: asyncio.Queue[bytes | None]) -> None:
    try:
        async for event in events:
            await queue.put(event.encode())
        await queue.put(None)
    except Exception:
        await queue.put(None)
        raise
    finally:
        await _close(events)


async def _next(queue: asyncio.Queue[bytes | None], keep_alive_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(keep_alive_s):
            return await queue.get()
    except TimeoutError:
        return KEEP_ALIVE


async def _with_ends(lines: AsyncIterator[str]) -> AsyncIterator[bytes]:
    try:
        async for line in lines:
            yield f"{line}\n".encode()
    finally:
        await _close(lines)


async def _close(source: Any) -> None:
    if hasattr(source, "aclose"):
        await source.aclose()
