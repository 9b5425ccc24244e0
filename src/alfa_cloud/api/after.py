"""What happens between the commit of a request and its answer, and after it: the bell, and waiting for an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from alfa_cloud.api.jsonapi.negotiation import JsonApiResponse
from alfa_cloud.api.jsonapi.query import thin

log = structlog.get_logger()

Ending = tuple[int, BaseModel]
"""The status and the document that a wait came to."""


@dataclass(slots=True)
class AfterCommit:
    """Collects what a request wants done once its transaction has committed."""

    request: Request
    _woken: list[UUID] = field(default_factory=list)
    _wait: Callable[[], Awaitable[Ending | None]] | None = None

    def wake(self, operation_id: UUID) -> None:
        """Ring for the operation once this commits."""
        self._woken.append(operation_id)

    def wait(self, ending: Callable[[], Awaitable[Ending | None]]) -> None:
        """Once this commits and the bell has rung, await `ending`, and answer what it gives; on None, as it was.

        It runs outside any session, and is cancelled when the client goes away.
        """
        self._wait = ending

    def wrap(self, response: Response, fields: Mapping[str, frozenset[str]]) -> Response:
        """The response, which does all this when it is sent: the transaction has committed by then."""
        if not self._woken and self._wait is None:
            return response
        return _Later(response, self, fields)

    async def ring(self) -> None:
        """Ring for all of them; a broker that is away costs time, and nothing else."""
        for operation_id in dict.fromkeys(self._woken):
            try:
                await self.request.app.state.broker.wake(operation_id)
            except Exception:
                log.warning("bell_not_rung", operation_id=str(operation_id), exc_info=True)

    async def ending(self, receive: Receive) -> Ending | None:
        """What the wait comes to; None where there is none, or where the client has gone."""
        if self._wait is None:
            return None
        waiting = asyncio.ensure_future(self._wait())
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
            return await waiting if waiting.done() else None
        finally:
            for task in (waiting, leaving):
                task.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)


class _Later(Response):
    """An answer that rings, waits, and then leaves."""

    def __init__(self, response: Response, after: AfterCommit, fields: Mapping[str, frozenset[str]]) -> None:
        self.inner = response
        self.after = after
        self.fields = fields
        self.status_code = response.status_code
        self.background = None
        self.raw_headers = response.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ring beside waiting and sending, so that a slow broker holds nobody up."""
        ringing = asyncio.create_task(self.after.ring())
        try:
            ending = await self.after.ending(receive)
            if ending is not None and isinstance(self.inner, JsonApiResponse):
                status, document = ending
                self.inner.replace(thin(document.model_dump(mode="json", by_alias=True), self.fields), status)
            await self.inner(scope, receive, send)
        finally:
            await ringing


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
