"""The application: doors, routers, errors, documentation.

`app.state` is filled by the lifespan: `session_factory`, `broker`, `ready_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from alfa_cloud.api import docs, errors, health, openapi
from alfa_cloud.api.auth import LoginDoor
from alfa_cloud.api.envelope import Envelope
from alfa_cloud.api.options import ApiOptions
from alfa_cloud.api.origin import OriginDoor, Origins
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.services.credentials import CheckedLogins

DESCRIPTION: Final = """
Private clouds of laboratories on a fleet of Linux servers.

- Everything that takes longer than a moment answers `202` with an operation; follow it at `/operations/{id}`.
- The published commands are GETs; each also answers POST on the same path, which new code should use.
- Bodies come as JSON:API documents, or as flat `application/json`. Render texts of logs as text, never as HTML.
"""

TAGS: Final = (
    {"name": "servers", "description": "The servers of the fleet."},
    {"name": "clients", "description": "The laboratories' clouds."},
    {"name": "images", "description": "Images of the application, and their builds."},
    {"name": "operations", "description": "Long work: its state, its log, its end."},
    {"name": "backups", "description": "Back-ups of clients."},
    {"name": "service", "description": "This service itself."},
)


def create_app(
    options: ApiOptions, routers: Sequence[ApiRouter], *, lifespan: Any = None, checked: CheckedLogins | None = None
) -> FastAPI:
    """The application, with all doors before all routes."""
    routes = [route for router in (*routers, health.router) for route in router.routes]
    origins = Origins.of(options)
    app = FastAPI(
        title="Alfa Cloud",
        version=options.version,
        description=DESCRIPTION,
        openapi_tags=[dict(tag) for tag in TAGS],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(Envelope, options=options, origins=origins),
            Middleware(OriginDoor, options=options, origins=origins, is_command=_commands((*routers, health.router))),
            Middleware(LoginDoor, checked=checked or CheckedLogins()),
        ],
    )
    app.router.routes.extend([*routes, *docs.routes()])
    app.openapi = lambda: openapi.describe(app)  # type: ignore[method-assign]  # FastAPI's documented hook
    errors.register(app)
    return app


def _commands(routers: Sequence[ApiRouter]) -> Callable[[str], bool]:
    """Whether a path is a command's: by the very patterns that the router goes by."""
    patterns = [pattern for router in routers for pattern in router.command_paths]
    return lambda path: any(pattern.match(path) for pattern in patterns)
