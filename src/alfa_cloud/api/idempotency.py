"""Repeats: a POST with an Idempotency-Key is answered once, and again with that same answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from alfa_cloud.api.jsonapi.body import read_bytes
from alfa_cloud.api.jsonapi.errors import RequestError, bad_header
from alfa_cloud.models.idempotency import IdempotencyKey
from alfa_cloud.services import idempotency

HEADER: Final = "Idempotency-Key"

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


class AlreadyAnsweredError(Exception):
    """Another request with this key was faster: its answer is the answer."""

    def __init__(self, answer: Response) -> None:
        super().__init__("answered already")
        self.answer = answer


@dataclass(slots=True)
class Repeatable:
    """A POST that may come again.

    Args:
        path: with its query.
    """

    key: str
    path: str
    body_digest: bytes
    answer: Response | None = None

    def replay(self, row: IdempotencyKey) -> Response:
        """The kept answer.

        Raises:
            RequestError: 422, the key was used for another request.
        """
        if (row.method, row.path, row.body_sha256) != ("POST", self.path, self.body_digest):
            detail = "This key was used for another request: a new request needs a new key."
            raise RequestError(bad_header(HEADER, detail, status=422, code="idempotency_key_reused"))
        return Response(row.body, row.status, headers=dict(row.headers))


async def begin(request: Request) -> Repeatable | None:
    """The request as one that may come again, with its answer where it was here before; None without a key.

    Raises:
        RequestError: 400, the key is not well-formed; 422, it was used for another request.
    """
    key = request.headers.get(HEADER)
    if key is None or request.method != "POST":
        return None
    if not _KEY.fullmatch(key):
        raise RequestError(bad_header(HEADER, "1 to 255 visible ASCII characters, such as a UUID."))
    path = request.url.path.rstrip("/") + (f"?{request.url.query}" if request.url.query else "")
    media = request.headers.get("content-type", "").encode()
    digest = request.app.state.digest(media + b"\0" + await read_bytes(request))
    repeat = Repeatable(key, path, digest)
    async with request.app.state.session_factory() as session:
        row = await idempotency.find(session, key)
    repeat.answer = None if row is None else repeat.replay(row)
    request.state.repeat = repeat
    return repeat


async def claim(request: Request, session: AsyncSession) -> None:
    """Within the transaction: no other request with the key runs beside this one.

    Raises:
        AlreadyAnsweredError: one ended meanwhile; the endpoint must not run.
    """
    repeat: Repeatable | None = getattr(request.state, "repeat", None)
    if repeat is None:
        return
    row = await idempotency.claim(session, repeat.key)
    if row is not None:
        raise AlreadyAnsweredError(repeat.replay(row))


async def keep(request: Request, response: Response) -> None:
    """A good answer is kept in the transaction of its work."""
    repeat: Repeatable | None = getattr(request.state, "repeat", None)
    session: AsyncSession | None = getattr(request.state, "session", None)
    if repeat is None or session is None or not 200 <= response.status_code < 300:
        return
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    await idempotency.keep(
        session,
        key=repeat.key,
        method="POST",
        path=repeat.path,
        body_sha256=repeat.body_digest,
        status=response.status_code,
        headers=headers,
        body=bytes(response.body),
    )
