"""The login door: HTTP Basic in UTF-8, for everything but the two public paths, and files by a signed link."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from alfa_cloud.api.jsonapi.errors import Problem, RequestError
from alfa_cloud.api.origin import route_path
from alfa_cloud.api.throttle import Throttle, too_many, visitor_of
from alfa_cloud.services import credentials
from alfa_cloud.services.credentials import MAX_BASIC_BYTES, CheckedLogins, StoredLogin

log = structlog.get_logger()

CHALLENGE: Final = 'Basic realm="Alfa Cloud", charset="UTF-8"'
PUBLIC_PATHS: Final = frozenset({"/healthz", "/healthz/", "/readyz", "/readyz/"})

SIGNED: Final = re.compile(r"/clients/[0-9]+/backups/[0-9a-fA-F-]{36}/file/?", re.ASCII)
"""Reads that ask for a signature in place of the login, and look at it before anything else."""

_MAX_ENCODED: Final = 4 * -(-MAX_BASIC_BYTES // 3)


def parse_basic(header: str) -> tuple[str, str] | None:
    """Login and password of an Authorization header (RFC 7617); None where it holds none."""
    scheme, _, encoded = header.partition(" ")
    encoded = encoded.strip(" ")
    if scheme.lower() != "basic" or not encoded or len(encoded) > _MAX_ENCODED:
        return None
    try:
        raw = base64.b64decode(encoded.encode("ascii"), validate=True)
        text = raw.decode("utf-8") if len(raw) <= MAX_BASIC_BYTES else ""
    except (binascii.Error, ValueError):
        return None
    login, colon, password = text.partition(":")
    return (login, password) if colon else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a login.

    Args:
        wait_s: it was not looked at, and will be after this; 0 where it was.
    """

    right: bool
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that a request brings.

    Args:
        visitor: where from, as the throttle counts it.
        mark: digest of all that the answer depends on.
    """

    visitor: str
    mark: bytes
    stored: StoredLogin | None
    login: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoginDoor:
    """ASGI middleware: 401 for whoever does not give the administrator's login, whatever the path; 429 for guessers."""

    app: ASGIApp
    checked: CheckedLogins
    throttle: Throttle
    running: dict[tuple[str, bytes], asyncio.Task[Verdict]] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise 401 or 429."""
        if scope["type"] == "http" and not _is_public(scope):
            await self._check(scope)
        await self.app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        """The request brings the right login."""
        given = Headers(scope=scope).getlist("authorization")
        pair = parse_basic(given[0]) if len(given) == 1 else None
        if pair is None:
            raise _refusal("Give the administrator's login by HTTP Basic, in UTF-8.")
        visitor = visitor_of(scope["state"]["peer"].address)
        here = self.throttle.is_here(visitor)
        if not here and (wait_s := self.throttle.told(visitor)):
            raise too_many(wait_s)
        async with scope["app"].state.session_factory() as session:
            stored = await credentials.read(session)
        # The session is closed before anything is hashed.
        attempt = Attempt(visitor, self.checked.mark(stored, *pair), stored, *pair)
        if here and self.checked.knows(attempt.mark):
            self.throttle.stays(visitor)
            return
        verdict = await self._judge(attempt)
        if verdict.wait_s:
            raise too_many(verdict.wait_s)
        if not verdict.right:
            log.warning("login_refused", address=str(scope["state"]["peer"].address))
            raise _refusal("The login or the password is wrong.")

    async def _judge(self, attempt: Attempt) -> Verdict:
        """Equal logins of one visitor that come at once are one try; what was found wrong lately is a repeat."""
        key = (attempt.visitor, attempt.mark)
        task = self.running.get(key)
        if task is not None:
            verdict = await asyncio.shield(task)
            return verdict if verdict.right or verdict.wait_s else await self._repeat(attempt)
        if self.throttle.was_refused(attempt.mark):
            return await self._repeat(attempt)
        task = asyncio.create_task(self._try(attempt))
        self.running[key] = task
        task.add_done_callback(lambda _: self.running.pop(key, None))
        return await asyncio.shield(task)

    async def _try(self, attempt: Attempt) -> Verdict:
        """Nothing is hashed before the throttle has let it through."""
        known = self.checked.knows(attempt.mark)
        if wait_s := await self.throttle.try_login(attempt.visitor, known=known):
            return Verdict(right=False, wait_s=wait_s)
        if await credentials.verify(attempt.stored, self.checked, attempt.login, attempt.password):
            await self.throttle.welcome(attempt.visitor)
            return Verdict(right=True)
        self.throttle.refuse(attempt.mark)
        return Verdict(right=False)

    async def _repeat(self, attempt: Attempt) -> Verdict:
        return Verdict(right=False, wait_s=await self.throttle.try_again(attempt.visitor))


def _is_public(scope: Scope) -> bool:
    path = route_path(scope)
    is_signed = scope["method"] in ("GET", "HEAD") and SIGNED.fullmatch(path) is not None
    return is_signed or path in PUBLIC_PATHS


def _refusal(detail: str) -> RequestError:
    problem = Problem(401, "unauthorized", "Login needed", detail, header="Authorization")
    return RequestError(problem, headers={"WWW-Authenticate": CHALLENGE})
