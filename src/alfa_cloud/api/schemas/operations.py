"""Operations, their logs and their events, as they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from alfa_cloud.api.jsonapi.documents import (
    Attributes,
    Collection,
    Document,
    Related,
    Relationships,
    Resource,
    ToOne,
    to_one,
)
from alfa_cloud.services.control import why_not_cancellable, why_not_retryable
from alfa_cloud.services.operation_views import LogPart, OperationView, StateChange, completed
from alfa_cloud.specs import OperationState, StepState, Stream

Completed = Literal["ok", "error"] | None


class StepValue(Attributes):
    """One step: `done`, or `skipped` where it held already; `waiting` to be tried again later; `undone` where it was
    taken back.
    """

    name: str = Field(examples=["ensure_database"])
    title: str = Field(examples=["Database alfa_17"])
    state: StepState
    started_at: datetime | None
    finished_at: datetime | None


class ErrorValue(Attributes):
    """Why an operation did not end well, and what a person can do."""

    code: str = Field(examples=["image_not_on_server"])
    message: str
    step: str | None = Field(description="The title of the step that failed.")


class OperationAttributes(Attributes):
    """A long work; poll `completed`, or read its log."""

    kind: str = Field(examples=["create_client"])
    state: OperationState
    completed: Completed = Field(description="null while it goes on, then `ok` or `error`.")
    step: str | None = Field(description="The title of the step that is being done.")
    steps: list[StepValue]
    progress: float = Field(ge=0, le=1)
    queue_position: int | None = Field(description="How many wait before it on its server; null once it has started.")
    error: ErrorValue | None
    warnings: list[str]
    result: dict[str, Any] | None
    cancellable: bool
    retryable: bool
    actor: str | None = Field(description="Who asked for it, as told by X-Actor.")
    request_id: str | None
    attempt: int = Field(description="How many workers have worked on it.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class OperationRelationships(Relationships):
    """What an operation is about, and what it came from."""

    client: ToOne
    server: ToOne
    parent: ToOne
    retry_of: ToOne
    children: Related


class OperationResource(Resource[Literal["operations"], OperationAttributes, OperationRelationships]):
    """An operation."""

    path = "/operations"


class OperationDocument(Document[OperationResource]):
    """One operation."""


class OperationCollection(Collection[OperationResource]):
    """A page of operations."""


ENDED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": OperationDocument, "description": "It ended within `wait_s`; `completed` tells how."}
}
"""What a command answers beside 202."""


class LineValue(Attributes):
    """One line of a log. Render it as text, never as HTML."""

    seq: int = Field(description="1, 2, 3, ... without a gap.")
    at: datetime
    stream: Stream
    text: str


class LogAttributes(Attributes):
    """The next lines of a log, and where its operation stands."""

    completed: Completed = Field(description="null while it goes on, then `ok` or `error`.")
    state: OperationState
    step: str | None
    progress: float
    last_seq: int = Field(description="The number of the last line that is stored.")
    lines: list[LineValue]


class LogResource(Resource[Literal["operation_logs"], LogAttributes]):
    """The log of an operation; its id is the operation's."""


class LogDocument(Document[LogResource]):
    """A part of a log; `links.next` leads to the next one, and is absent once all has been read."""


def operation_resource(view: OperationView) -> OperationResource:
    """An operation as a resource object."""
    row = view.operation
    attributes = OperationAttributes(
        kind=row.kind,
        state=OperationState(row.state),
        completed=_completed(row),
        step=row.step,
        steps=[StepValue.model_validate(step) for step in view.steps],
        progress=row.progress,
        queue_position=view.queue_position,
        error=None if row.error is None else ErrorValue(**row.error),
        warnings=row.warnings,
        result=row.result,
        cancellable=why_not_cancellable(row) is None,
        retryable=why_not_retryable(row) is None,
        actor=row.actor,
        request_id=row.request_id,
        attempt=row.attempt,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
    relationships = OperationRelationships(
        client=to_one("clients", row.client_id),
        server=to_one("servers", row.server_id),
        parent=to_one("operations", row.parent_id),
        retry_of=to_one("operations", row.retry_of),
        children=Related(links={"related": f"/operations?filter[parent]={row.id}"}, meta=dict(view.children)),
    )
    return OperationResource.make(row.id, attributes, relationships)


def _completed(row: Any) -> Completed:
    word = completed(row)
    return "ok" if word == "ok" else None if word is None else "error"


def log_attributes(part: LogPart) -> LogAttributes:
    """A part of a log, as it is shown."""
    row = part.operation
    return LogAttributes(
        completed=_completed(row),
        state=OperationState(row.state),
        step=row.step,
        progress=row.progress,
        last_seq=part.last_seq,
        lines=[LineValue.model_validate(line) for line in part.lines],
    )


def event_data(change: StateChange) -> dict[str, Any]:
    """A change of state, for a badge."""
    row = change.operation
    return {
        "operation": str(row.id),
        "kind": row.kind,
        "state": change.state,
        "client": None if row.client_id is None else str(row.client_id),
        "server": None if row.server_id is None else str(row.server_id),
        "at": change.at.isoformat().replace("+00:00", "Z"),
    }
