"""The first doors: the network, HTTPS, the page a browser acts for, and the preflight of CORS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from alfa_cloud.api.jsonapi.errors import Problem, RequestError
from alfa_cloud.api.options import ApiOptions
from alfa_cloud.api.peer import Peer

WRITING_METHODS: Final = frozenset({"POST", "PATCH", "PUT", "DELETE"})
ALLOW_METHODS: Final = "GET, HEAD, POST, PATCH, DELETE"
ALLOW_HEADERS: Final = "Authorization, Content-Type, Accept, Idempotency-Key, X-Actor, X-Request-ID, Last-Event-ID"
EXPOSE_HEADERS: Final = "Location, Content-Location, Retry-After, X-Request-ID"
VARY: Final = "Accept, Origin, Sec-Fetch-Site"
PREFLIGHT_S: Final = 600

_FETCH_METADATA: Final = ("sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user")
_PURPOSES: Final = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_AHEAD: Final = ("prefetch", "prerender", "preview")


@dataclass(frozen=True, slots=True)
class Origins:
    """Which pages of browsers are friends."""

    exact: frozenset[str]
    every: bool
    loopback: bool

    @classmethod
    def of(cls, options: ApiOptions) -> Origins:
        """The configured ones, and this service's own pages."""
        named = {origin.rstrip("/").lower() for origin in options.allowed_origins if origin != "*"}
        own = {origin_of(options.public_url)} - {""}
        return cls(frozenset(named | own), "*" in options.allowed_origins, options.loopback_origins)

    def has(self, origin: str) -> bool:
        """Whether a page of this origin may ask; `null` never may."""
        if not origin or origin == "null":
            return False
        return self.every or origin in self.exact or (self.loopback and _is_loopback(origin))


def judge(headers: Headers, *, command: bool, origins: Origins) -> str | None:
    """Why a request must not run, by the table of the contract (§6); None where it may."""
    origin, referer = headers.get("origin"), headers.get("referer")
    site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    if any(word in headers.get(name, "").lower() for name in _PURPOSES for word in _AHEAD):
        return "A browser asks for this ahead of time; nothing is done before a person asks."
    if not any(name in headers for name in _FETCH_METADATA):
        return _judge_old(origin, referer, origins)
    if site == "same-origin" and mode in ("cors", "same-origin"):
        return None
    if mode == "cors" and origin is not None and origins.has(origin):
        return None
    if site == "none" and mode == "navigate":
        return "Commands do not run from the address bar: use Swagger UI, curl or Mol." if command else None
    return "This page must not use the API; ALFA_ALLOWED_ORIGINS names the ones that may."


def _judge_old(origin: str | None, referer: str | None, origins: Origins) -> str | None:
    """Without fetch metadata: a script, or an old browser that names its page."""
    asking = origin if origin is not None else origin_of(referer) if referer is not None else None
    if asking is None or origins.has(asking):
        return None
    return "This page must not use the API; ALFA_ALLOWED_ORIGINS names the ones that may."


def origin_of(url: str) -> str:
    """The origin of an address as browsers write it; empty where it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")


def _is_loopback(origin: str) -> bool:
    host = urlsplit(origin).hostname if origin_of(origin) == origin else None
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class OriginDoor:
    """ASGI middleware: lets in what the network and the contract's table allow, and answers preflights.

    Args:
        is_command: whether a GET of this path changes something.
    """

    app: ASGIApp
    options: ApiOptions
    origins: Origins
    is_command: Callable[[str], bool]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise what it is refused for."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        self._check_peer(scope["state"]["peer"])
        command = scope["method"] in WRITING_METHODS or (
            scope["method"] in ("GET", "HEAD") and self.is_command(route_path(scope))
        )
        if reason := judge(headers, command=command, origins=self.origins):
            raise RequestError(_forbidden("origin_refused", reason))
        if _is_preflight(scope, headers):
            await _preflight()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_peer(self, peer: Peer) -> None:
        if not peer.within(self.options.allowed_networks):
            raise RequestError(_forbidden("network_refused", "Your address is not in ALFA_ALLOWED_NETWORKS."))
        if not peer.safe:
            raise RequestError(_forbidden("https_required", "Use HTTPS; plain HTTP is taken on loopback only."))


def add_cors(headers: MutableHeaders, asked: Headers, origins: Origins) -> None:
    """Let the page of an allowed origin read the answer, without its browser's own credentials."""
    origin = asked.get("origin")
    if origin is not None and origins.has(origin):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = EXPOSE_HEADERS


def route_path(scope: Scope) -> str:
    """The path as the router sees it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def _preflight() -> Response:
    headers = {
        "Access-Control-Allow-Methods": ALLOW_METHODS,
        "Access-Control-Allow-Headers": ALLOW_HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_S),
    }
    return Response(status_code=204, headers=headers)


def _forbidden(code: str, detail: str) -> Problem:
    return Problem(403, code, "Forbidden", detail)
