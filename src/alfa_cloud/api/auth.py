"""The login door: HTTP Basic in UTF-8, for everything but the two public paths."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from alfa_cloud.api.jsonapi.errors import Problem, RequestError
from alfa_cloud.api.origin import route_path
from alfa_cloud.services import credentials
from alfa_cloud.services.credentials import MAX_BASIC_BYTES, CheckedLogins

log = structlog.get_logger()

CHALLENGE: Final = 'Basic realm="Alfa Cloud", charset="UTF-8"'
PUBLIC_PATHS: Final = frozenset({"/healthz", "/healthz/", "/readyz", "/readyz/"})

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
class LoginDoor:
    """ASGI middleware: 401 for whoever does not give the administrator's login, whatever the path."""

    app: ASGIApp
    checked: CheckedLogins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise 401."""
        if scope["type"] == "http" and route_path(scope) not in PUBLIC_PATHS:
            await self._check(scope)
        await self.app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        """The request brings the right login.

        Throttling belongs here: before `_verify`, so that nothing is hashed for a throttled address, and in
        `_refuse`, which counts.
        """
        given = Headers(scope=scope).getlist("authorization")
        login = parse_basic(given[0]) if len(given) == 1 else None
        if login is None:
            raise _refusal("Give the administrator's login by HTTP Basic, in UTF-8.")
        if not await self._verify(scope, *login):
            self._refuse(scope)

    async def _verify(self, scope: Scope, login: str, password: str) -> bool:
        """The session is closed before anything is hashed."""
        async with scope["app"].state.session_factory() as session:
            stored = await credentials.read(session)
        return await credentials.verify(stored, self.checked, login, password)

    def _refuse(self, scope: Scope) -> None:
        log.warning("login_refused", address=str(scope["state"]["peer"].address))
        raise _refusal("The login or the password is wrong.")


def _refusal(detail: str) -> RequestError:
    problem = Problem(401, "unauthorized", "Login needed", detail, header="Authorization")
    return RequestError(problem, headers={"WWW-Authenticate": CHALLENGE})
