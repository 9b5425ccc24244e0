"""Problems of a request, and their rendering as JSON:API error objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uuid6 import uuid7

from alfa_cloud.errors import AlfaCloudError


@dataclass(frozen=True, slots=True)
class Problem:
    """One error object; of `pointer`, `parameter` and `header` at most one is set.

    Args:
        title: the same for every occurrence of `code`.
        detail: what a person can do about it.
    """

    status: int
    code: str
    title: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def render(self, request_id: str) -> dict[str, Any]:
        """The error object, with an id of this occurrence."""
        error: dict[str, Any] = {
            "id": str(uuid7()),
            "status": str(self.status),
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
        }
        source = {"pointer": self.pointer, "parameter": self.parameter, "header": self.header}
        if given := {name: value for name, value in source.items() if value is not None}:
            error["source"] = given
        error["meta"] = {**self.meta, "request_id": request_id}
        return error


class RequestError(AlfaCloudError):
    """The request itself is wrong; each problem says where.

    Args:
        headers: for the answer.
    """

    code = "bad_request"
    title = "The request is wrong"

    def __init__(self, *problems: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problems[0].detail)
        self.problems = problems
        self.headers = dict(headers or {})


def status_of(problems: Sequence[Problem]) -> int:
    """The status of an answer with these problems: theirs, or the general one of several."""
    statuses = {problem.status for problem in problems}
    if len(statuses) == 1:
        return statuses.pop()
    return 400 if max(statuses) < 500 else 500


def render(problems: Sequence[Problem], request_id: str) -> dict[str, Any]:
    """The document of an answer with these problems."""
    return {"errors": [problem.render(request_id) for problem in problems], "jsonapi": {"version": "1.1"}}


def bad_parameter(name: str, detail: str, *, code: str = "invalid_parameter") -> Problem:
    """A query parameter is wrong."""
    return Problem(400, code, "Invalid query parameter", detail, parameter=name[:100])


def bad_header(name: str, detail: str, *, status: int = 400, code: str = "invalid_header") -> Problem:
    """A header is wrong."""
    return Problem(status, code, "Invalid header", detail, header=name)
