"""The one handler: whatever was raised becomes a JSON:API error document, and nothing inside leaks out."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from asyncpg import CannotConnectNowError, OperatorInterventionError, PostgresConnectionError, TooManyConnectionsError
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from alfa_cloud.api.jsonapi.errors import Problem, RequestError, bad_header, bad_parameter, render, status_of
from alfa_cloud.api.jsonapi.form import BodyForm, message_of
from alfa_cloud.api.jsonapi.negotiation import JsonApiResponse
from alfa_cloud.errors import AlfaCloudError, FieldError

log = structlog.get_logger()

RETRY_AFTER_S: Final = 5
DATABASE_AWAY: Final = (
    OSError,
    PoolTimeoutError,
    InterfaceError,
    OperationalError,
    PostgresConnectionError,
    CannotConnectNowError,
    OperatorInterventionError,
    TooManyConnectionsError,
)
"""What the database driver raises while PostgreSQL is away; some of it comes unwrapped from connecting."""


def register(app: FastAPI) -> None:
    """Every error of the application goes through `answer`; what has no kind here, through the envelope."""
    for kind in (AlfaCloudError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    return answer(request.scope, error)


def answer(scope: Scope, error: Exception) -> JsonApiResponse:
    """The answer to a request that ended in this error; what is not meant for outsiders is only logged."""
    problems = list(_problems(scope, error))
    status = status_of(problems)
    if status >= 500:
        # As text, without the values of variables: the login is among them.
        trace = "".join(traceback.format_exception(error))
        log.error("request_failed", method=scope["method"], path=scope["path"], traceback=trace)
    document = render(problems, scope["state"]["request_id"])
    return JsonApiResponse(document, status, headers=_headers(scope, error, status))


def _headers(scope: Scope, error: Exception, status: int) -> Mapping[str, str]:
    if isinstance(error, RequestError):
        return error.headers
    if status == 405:
        return {"Allow": ", ".join(sorted(allowed_methods(scope)))}
    if status in (429, 503):
        after_s = error.meta.get("retry_after_s", RETRY_AFTER_S) if isinstance(error, AlfaCloudError) else RETRY_AFTER_S
        return {"Retry-After": str(after_s)}
    return {}


def allowed_methods(scope: Scope) -> set[str]:
    """The methods of all routes of the path."""
    found: set[str] = set()
    for route in scope["app"].routes:
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return found


def _problems(scope: Scope, error: Exception) -> Iterator[Problem]:
    match error:
        case RequestError():
            yield from error.problems
        case FieldError():
            yield _field_problem(scope, error)
        case AlfaCloudError():
            yield Problem(error.status, error.code, error.title, error.detail, meta=error.meta)
        case ExceptionGroup() if all(isinstance(leaf, AlfaCloudError) for leaf in _leaves(error)):
            for leaf in _leaves(error):
                yield from _problems(scope, leaf)
        case RequestValidationError():
            yield from map(_validation_problem, error.errors())
        case HTTPException():
            yield _http_problem(error.status_code)
        case ClientDisconnect():
            yield Problem(400, "client_disconnected", "The request broke off", "The body did not arrive.")
        case _ if isinstance(error, DATABASE_AWAY) or (isinstance(error, DBAPIError) and error.connection_invalidated):
            yield Problem(503, "unavailable", "Not available now", "The database does not answer; try again soon.")
        case _:
            yield Problem(500, "internal", "Internal error", "This failed in the service; its log knows the request.")


def _leaves(group: ExceptionGroup[Any]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _field_problem(scope: Scope, error: FieldError) -> Problem:
    """The field by its pointer in the body that was sent, else as the query parameter that it came by."""
    form = scope["state"].get("body_form")
    meta = {"field": error.field, **error.meta}
    for name in (error.field, f"filter[{error.field}]"):
        if name in getattr(scope.get("route"), "parameter_names", ()):
            return Problem(error.status, error.field_code, error.title, error.detail, parameter=name, meta=meta)
    if isinstance(form, BodyForm):
        return form.problem((error.field,), error.field_code, error.detail, error.meta)
    return Problem(error.status, error.field_code, error.title, error.detail, meta=meta)


def _validation_problem(details: Any) -> Problem:
    """FastAPI's own parameters: a wrong path is an unknown address, the rest is 400."""
    where, name = str(details["loc"][0]), str(details["loc"][-1])
    if where == "path":
        return _http_problem(404)
    if where == "header":
        return bad_header(name, message_of(details))
    return bad_parameter(name, message_of(details))


def _http_problem(status: int) -> Problem:
    known = {
        404: ("not_found", "There is nothing at this address."),
        405: ("method_not_allowed", "The address does not take this method; `Allow` names those it takes."),
    }
    phrase = HTTPStatus(status).phrase
    code, detail = known.get(status, (phrase.lower().replace(" ", "_"), phrase + "."))
    return Problem(status, code, phrase, detail)
