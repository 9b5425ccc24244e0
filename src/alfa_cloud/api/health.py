"""The two public addresses; they tell an outsider nothing but a status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import structlog
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from alfa_cloud.api.routing import ApiRouter

log = structlog.get_logger()

READY_DEADLINE_S: Final = 3.0

ReadyCheck = Callable[[], Awaitable[bool]]
"""True where one thing that the service needs is there."""

router = ApiRouter(tags=["service", "public"], default_response_class=JSONResponse)


class Health(BaseModel):
    """A status and nothing else."""

    status: Literal["ok", "unavailable"]


@router.get("/healthz")
async def read_health() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get(
    "/readyz",
    response_model=Health,
    responses={503: {"model": Health, "description": "Something that is needed is away."}},
)
async def read_readiness(request: Request) -> Response:
    """The database, the broker and a worker are there."""
    checks: dict[str, ReadyCheck] = request.app.state.ready_checks
    results = await asyncio.gather(*(_holds(name, check) for name, check in checks.items()))
    if all(results):
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "unavailable"}, 503)


async def _holds(name: str, check: ReadyCheck) -> bool:
    try:
        async with asyncio.timeout(READY_DEADLINE_S):
            there = await check()
    except Exception as error:
        log.warning("not_ready", check=name, error=repr(error))
        return False
    if not there:
        log.warning("not_ready", check=name)
    return there
