"""Swagger UI, served whole from this origin, and the OpenAPI document it shows."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from alfa_cloud.api.jsonapi.negotiation import JSON, dump_json

OWN: Final = Path(__file__).parent / "static"

PAGE_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing inline, nothing from elsewhere; `data:` is for the pictures in Swagger UI's style sheet."""

_JAVASCRIPT: Final = "text/javascript"


def bundled() -> Path:
    """The folder with Swagger UI's own files, out of the package that vendors them."""
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package fastapi-offline is missing")
    return Path(spec.origin).parent / "static"


def routes() -> list[Route]:
    """`/docs`, its files, and `/openapi.json`, each with both slashes."""
    vendored = bundled()
    pages = {
        "/docs": _file(OWN / "docs.html", "text/html", {"Content-Security-Policy": PAGE_POLICY}),
        "/docs/utf8.js": _file(OWN / "utf8.js", _JAVASCRIPT),
        "/docs/start.js": _file(OWN / "start.js", _JAVASCRIPT),
        "/docs/swagger-ui-bundle.js": _file(vendored / "swagger-ui-bundle.js", _JAVASCRIPT),
        "/docs/swagger-ui.css": _file(vendored / "swagger-ui.css", "text/css"),
        "/openapi.json": _openapi,
    }
    return [
        Route(path + slash, endpoint, methods=["GET"], include_in_schema=False)
        for path, endpoint in pages.items()
        for slash in ("", "/")
    ]


def _file(
    path: Path, media_type: str, headers: dict[str, str] | None = None
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def serve(request: Request) -> Response:
        """The file as it stands on disk."""
        return FileResponse(path, media_type=media_type, headers=headers)

    return serve


async def _openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return Response(dump_json(request.app.openapi()), media_type=JSON)
