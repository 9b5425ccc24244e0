"""What endpoints ask for: a session, the caller, the bell, ids out of paths."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Path
from pydantic import BeforeValidator
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from alfa_cloud.api import idempotency
from alfa_cloud.api.after import AfterCommit
from alfa_cloud.api.caller import Caller

_INTEGER: Final = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@asynccontextmanager
async def transaction(request: Request) -> AsyncIterator[AsyncSession]:
    """A session whose work commits at the end, unless there is an error; repeats of a keyed request end here."""
    async with request.app.state.session_factory() as session, session.begin():
        await idempotency.claim(request, session)
        request.state.session = session
        yield session


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """One request is one transaction; with scope "function" it commits before the answer leaves."""
    async with transaction(request) as session:
        yield session


async def get_opener(request: Request) -> AsyncIterator[OpenSession]:
    """The same, for an endpoint that must look elsewhere first: the session opens when it is called for."""
    async with AsyncExitStack() as stack:

        async def open_session() -> AsyncSession:
            return await stack.enter_async_context(transaction(request))

        yield open_session


async def get_caller(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.state.caller
    return caller


async def get_after(request: Request) -> AfterCommit:
    """What this request wants done after its commit."""
    after: AfterCommit = request.state.after_commit
    return after


def _integer(value: Any) -> Any:
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise ValueError("an id is a positive whole number")
    return value


def _uuid(value: Any) -> Any:
    if isinstance(value, str) and not _UUID.fullmatch(value):
        raise ValueError("an id is a UUID")
    return value


OpenSession = Callable[[], Awaitable[AsyncSession]]

SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
OpenSessionDep = Annotated[OpenSession, Depends(get_opener, scope="function")]
CallerDep = Annotated[Caller, Depends(get_caller)]
AfterDep = Annotated[AfterCommit, Depends(get_after)]

IntId = Annotated[int, Path(ge=1, le=2**31 - 1), BeforeValidator(_integer)]
"""An id in a path; anything but a positive whole number is 404."""
UuidId = Annotated[UUID, Path(), BeforeValidator(_uuid)]
"""An id in a path; anything but a UUID is 404."""
