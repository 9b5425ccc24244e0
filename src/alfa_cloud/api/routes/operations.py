"""Operations: their state, their log, their end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from starlette.requests import Request

from alfa_cloud.api.dependencies import CallerDep, SessionDep, UuidId
from alfa_cloud.api.jsonapi.negotiation import Media
from alfa_cloud.api.jsonapi.query import Listing, lists
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.schemas.operations import (
    ENDED,
    LogDocument,
    LogResource,
    OperationCollection,
    OperationDocument,
    event_data,
    log_attributes,
    operation_resource,
)
from alfa_cloud.api.state import AskDep, Services, ServicesDep
from alfa_cloud.api.streams import Event, event_stream, last_event_id, offers, text_stream
from alfa_cloud.services import control, operation_views
from alfa_cloud.services.operation_views import LogPart

router = ApiRouter(tags=["operations"])

OperationListing = Annotated[
    Listing, lists(filters=operation_views.FILTERS, sorts=tuple(operation_views.SORTS), sort="-created_at")
]
LogMedia = Annotated[Media, offers(Media.JSONAPI, Media.SSE, Media.TEXT)]
AfterSeq = Annotated[int, Query(ge=0, le=2**31 - 1, description="Only lines after this one.")]
LogWaitS = Annotated[int, Query(ge=0, le=60, description="Wait for new lines up to so many seconds.")]
FollowLog = Annotated[bool, Query(description="As text/plain: go on to the end of the operation.")]


@router.get("/operations")
async def list_operations(session: SessionDep, listing: OperationListing) -> OperationCollection:
    """Every operation, the newest first."""
    page = await operation_views.list_operations(session, listing.query)
    views = await operation_views.views(session, page.rows)
    return OperationCollection.of(map(operation_resource, views), listing, page.total)


@router.get("/operations/{operation_id}")
async def read_operation(operation_id: UuidId, session: SessionDep) -> OperationDocument:
    """One operation: its state, its steps, and why it failed."""
    operation = await operation_views.get_operation(session, operation_id)
    (view,) = await operation_views.views(session, [operation])
    return OperationDocument.of(operation_resource(view))


@router.get("/operations/{operation_id}/log", response_model=LogDocument)
async def read_operation_log(
    operation_id: UuidId,
    request: Request,
    services: ServicesDep,
    media: LogMedia,
    after_seq: AfterSeq = 0,
    wait_s: LogWaitS = 0,
    follow_log: FollowLog = False,
) -> Any:
    """Its log: by polling `links.next`, as an event stream, or as plain text."""
    return await answer_log(
        request, services, [operation_id], media, after_seq=after_seq, wait_s=wait_s, follow_log=follow_log
    )


@router.post("/operations/{operation_id}/cancel", status_code=202, responses=ENDED)
async def cancel_operation(operation_id: UuidId, session: SessionDep, ask: AskDep) -> OperationDocument:
    """Stop it between steps, and take back what it did; 409 where it cannot be stopped."""
    return await ask.accepted(session, await control.cancel(session, operation_id))


@router.post("/operations/{operation_id}/retry", status_code=202, responses=ENDED)
async def retry_operation(
    operation_id: UuidId, session: SessionDep, ask: AskDep, caller: CallerDep
) -> OperationDocument:
    """Run a failed operation again, as a new one, with its subject's present attributes."""
    return await ask.accepted(session, await control.retry(session, operation_id, caller))


@router.get("/events", response_model=None)
async def follow_events(request: Request, services: ServicesDep, media: Annotated[Media, offers(Media.SSE)]) -> Any:
    """Every change of an operation's state, as an event stream; `Last-Event-ID` goes on after it."""
    del media
    after = last_event_id(request)

    async def changes() -> AsyncIterator[Event]:
        async for change in operation_views.follow_events(services.sessions, services.listener, after):
            yield Event(change.id, "operation", event_data(change))

    return event_stream(changes())


async def answer_log(
    request: Request,
    services: Services,
    operation_ids: Sequence[UUID],
    media: Media,
    *,
    after_seq: int,
    wait_s: int,
    follow_log: bool,
) -> Any:
    """A log in the form that was asked for; it runs over these operations, one after the other."""
    after = last_event_id(request) if media is Media.SSE else None
    after_seq = after_seq if after is None else after
    if media is Media.JSONAPI:
        part = await operation_views.wait_for_log(
            services.sessions, services.listener, operation_ids, after_seq, wait_s
        )
        return log_document(part, request.url.path, after_seq, wait_s)
    async with services.sessions() as session:
        await operation_views.read_log(session, operation_ids, after_seq)  # 404 before the stream begins
    if media is Media.TEXT and not follow_log:
        return text_stream(_texts(_parts_now(services, operation_ids, after_seq)))
    parts = operation_views.follow_log(services.sessions, services.listener, operation_ids, after_seq)
    return event_stream(_events(parts)) if media is Media.SSE else text_stream(_texts(parts))


def log_document(part: LogPart, path: str, after_seq: int, wait_s: int = 0) -> LogDocument:
    """A part of a log, with the way to the next one."""
    resource = LogResource.make(part.operation.id, log_attributes(part), link=path)
    links: dict[str, str] = {"self": f"{path}?after_seq={after_seq}"}
    if not part.drained:
        last = part.lines[-1].seq if part.lines else max(after_seq, 0)
        links["next"] = f"{path}?after_seq={last}" + (f"&wait_s={wait_s}" if wait_s else "")
    return LogDocument.of(resource, links=links)


async def _parts_now(services: Services, operation_ids: Sequence[UUID], after_seq: int) -> AsyncIterator[LogPart]:
    """What is stored now, to its end."""
    while True:
        async with services.sessions() as session:
            part = await operation_views.read_log(session, operation_ids, after_seq)
        if not part.lines:
            return
        yield part
        after_seq = part.lines[-1].seq


async def _texts(parts: AsyncIterator[LogPart]) -> AsyncIterator[str]:
    async for part in parts:
        for line in part.lines:
            yield f"== {line.text}" if line.stream == "step" else line.text
        if part.drained and part.completed is not None:
            yield f"completed: {part.completed}"


async def _events(parts: AsyncIterator[LogPart]) -> AsyncIterator[Event]:
    async for part in parts:
        for line in part.lines:
            data = {"seq": line.seq, "at": _moment(line.at), "stream": line.stream, "text": line.text}
            yield Event(line.seq, "line", data)
        if part.drained:
            error = part.operation.error
            data = {"completed": part.completed, "state": part.operation.state, "error": error}
            yield Event(None, "completed", data)


def _moment(at: Any) -> str:
    return str(at.isoformat()).replace("+00:00", "Z")
