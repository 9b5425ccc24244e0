"""The application: doors, routers, errors, documentation.

`app.state` is filled by the lifespan: `session_factory`, `broker`, `ready_checks`; `throttle` is there from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from alfa_cloud.api import docs, errors, health, openapi
from alfa_cloud.api.auth import LoginDoor
from alfa_cloud.api.envelope import Envelope
from alfa_cloud.api.metering import Metering
from alfa_cloud.api.options import ApiOptions
from alfa_cloud.api.origin import OriginDoor, Origins
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.throttle import Throttle
from alfa_cloud.services.credentials import CheckedLogins

DESCRIPTION: Final = """
Private clouds of laboratories on a fleet of Linux servers.

- **Begin** with *Authorize*: the administrator's login, in any letters. Every form below can then be sent.
- Everything that takes longer than a moment is an **operation**: it answers `202` with its address in `Location`, or a
  created resource whose relationship `operation` is it. `completed` is `null`, then `"ok"` or `"error"`; its log is
  live. `wait_s` waits for the end before it answers, `dry_run` answers the plan and does nothing.
- The published **commands** are GETs; each also answers POST on the same path. Use POST, with an `Idempotency-Key`: a
  request that is sent again is then answered again, not done again. A command equal to the last unfinished one of its
  subject is that one.
- **Bodies** come as JSON:API documents, or as flat `application/json`; errors point into the form that was sent.
- Every path is taken with and without a slash at its end, and `/server/...` is `/servers/...`. A list has pages,
  `filter[...]`, `sort`, `include` and `fields[...]`; several values stand in one parameter, separated by commas.
- Render texts of logs as text, never as HTML.
"""

TAGS: Final = (
    {"name": "clients", "description": "The laboratories' clouds: make one, change it, run a command on it."},
    {"name": "operations", "description": "Long work: its state, its steps, its live log, its end."},
    {"name": "servers", "description": "The servers of the fleet, and commands for all clients of one."},
    {"name": "images", "description": "Images of the application, and their builds."},
    {"name": "backups", "description": "Back-ups of clients."},
    {"name": "administration", "description": "The login of this API."},
    {"name": "service", "description": "This service itself: whether it works, and figures of it."},
)
"""In the order in which people work; one without an endpoint is not shown."""


def create_app(
    options: ApiOptions,
    routers: Sequence[ApiRouter],
    *,
    lifespan: Any = None,
    checked: CheckedLogins | None = None,
    throttle: Throttle | None = None,
) -> FastAPI:
    """The application, with all doors before all routes."""
    throttle = throttle or Throttle()
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
            Middleware(Metering),
            Middleware(Envelope, options=options, origins=origins),
            Middleware(OriginDoor, options=options, origins=origins, is_command=_commands((*routers, health.router))),
            Middleware(LoginDoor, checked=checked or CheckedLogins(), throttle=throttle),
        ],
    )
    app.state.throttle = throttle
    app.router.routes.extend([*routes, *docs.routes()])
    app.openapi = lambda: openapi.describe(app)  # type: ignore[method-assign]  # FastAPI's documented hook
    errors.register(app)
    return app


def _commands(routers: Sequence[ApiRouter]) -> Callable[[str], bool]:
    """Whether a path is a command's: by the very patterns that the router goes by."""
    patterns = [pattern for router in routers for pattern in router.command_paths]
    return lambda path: any(pattern.match(path) for pattern in patterns)
