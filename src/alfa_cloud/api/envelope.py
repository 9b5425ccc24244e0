"""The outermost layer: the request's id, headers that every answer bears, and the last catch of any error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid6 import uuid7

from alfa_cloud.api.errors import answer
from alfa_cloud.api.options import ApiOptions
from alfa_cloud.api.origin import VARY, Origins, add_cors
from alfa_cloud.api.peer import peer_of

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer; an endpoint may set one of its own."""
MAX_SWALLOWED_DIGITS: Final = 6
"""Bodies below 1 MB are read to their end, so that their senders see the answer instead of a broken connection."""
HSTS: Final = "max-age=31536000"

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id_of(headers: Headers) -> str:
    """The id that the request brings, where it is well-formed, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else str(uuid7())


@dataclass(frozen=True, slots=True)
class Envelope:
    """ASGI middleware: `request_id` and `peer` in the request's state, headers on the answer, no error unanswered."""

    app: ASGIApp
    options: ApiOptions
    origins: Origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever happens inside."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id_of(asked)
        state["peer"] = peer_of(scope, self.options.trusted_proxies)
        reply = _Reply(receive, send, scope, asked, self.origins, unread=_brings_much(asked))
        with structlog.contextvars.bound_contextvars(request_id=state["request_id"]):
            try:
                await self.app(scope, reply.receive_message, reply.send_message)
            except Exception as error:
                if reply.started:
                    raise
                await answer(scope, error)(scope, reply.receive_message, reply.send_message)


def _brings_much(asked: Headers) -> bool:
    length = asked.get("content-length", "0")
    return "transfer-encoding" in asked or not length.isdigit() or len(length) > MAX_SWALLOWED_DIGITS


@dataclass(slots=True)
class _Reply:
    """Adds the headers to an answer, and takes the body off an answer to HEAD.

    Args:
        unread: a large body has not arrived to its end; an answer before that ends the connection, so that nobody has
            to swallow the rest of it.
    """

    receive: Receive
    send: Send
    scope: Scope
    asked: Headers
    origins: Origins
    unread: bool
    started: bool = False

    async def receive_message(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self.unread = False
        return message

    async def send_message(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._add_headers(MutableHeaders(scope=message))
        elif message["type"] == "http.response.body" and self.scope["method"] == "HEAD":
            message = {**message, "body": b""}
        await self.send(message)

    def _add_headers(self, headers: MutableHeaders) -> None:
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        headers["Vary"] = VARY
        headers["X-Request-ID"] = self.scope["state"]["request_id"]
        if self.scope["state"]["peer"].https:
            headers["Strict-Transport-Security"] = HSTS
        if self.unread and str(self.scope["http_version"]).startswith("1"):
            headers["Connection"] = "close"
        add_cors(headers, self.asked, self.origins)
