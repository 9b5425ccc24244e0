"""One parser for both forms of a body: a JSON:API document, or flat `application/json`.

A route declares its body once; both forms stand in the OpenAPI document:

    NewServer = Annotated[Body[ServerCreate], body("servers", ServerCreate, example={"name": "s1", ...})]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from fastapi import Depends
from pydantic import ValidationError
from starlette.requests import Request

from alfa_cloud.api.jsonapi import strictjson
from alfa_cloud.api.jsonapi.errors import Problem, RequestError
from alfa_cloud.api.jsonapi.fields import BodyModel, NoFields, RelatesTo, relationships
from alfa_cloud.api.jsonapi.form import BodyForm, explain
from alfa_cloud.api.jsonapi.negotiation import Media, check_content_type

COMMANDS: Final = "commands"
"""The type of a document that carries the body of a command."""

MAX_PROBLEMS: Final = 50

_TOP_MEMBERS: Final = {"data", "meta", "jsonapi", "links"}
_DATA_MEMBERS: Final = {"type", "id", "lid", "attributes", "relationships", "links", "meta"}
_DIGITS: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

ValueT_co = TypeVar("ValueT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Body(Generic[ValueT_co]):
    """A body that was read and holds.

    Args:
        id: the resource's id, where the body names one.
        value: the model; `model_fields_set` tells what was sent.
    """

    id: str | None
    value: ValueT_co

    @property
    def int_id(self) -> int:
        """The id as a number; 0, which no row has, where it is none."""
        return int(self.id) if self.id and _DIGITS.fullmatch(self.id) else 0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a body says, whichever its form; `problems` are what its structure has wrong."""

    id: Any
    members: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class BodyReader:
    """Reads and validates bodies of one kind.

    Args:
        type_name: the resource type of the document.
        update: the model for a body that names an id, where creating and updating share an address.
        path_id: the path parameter that the id must equal.
        example: flat attributes; the document's example is made of them.
    """

    type_name: str
    model: type[BodyModel]
    update: type[BodyModel] | None = None
    path_id: str | None = None
    example: Mapping[str, Any] = field(default_factory=dict)

    async def __call__(self, request: Request) -> Body[Any]:
        """The body of this request.

        Raises:
            RequestError: 400 not JSON, 409 another type or id, 413 too large, 415 another media type, 422 wrong fields.
        """
        raw = await read_bytes(request)
        if not raw and self.model is NoFields:
            return Body(None, NoFields())
        document = check_content_type(request) is Media.JSONAPI
        content = _parse(raw)
        form = BodyForm(document, content, relationships(self.model) | relationships(self.update or self.model))
        request.state.body_form = form
        parts = self._document(content, form) if document else self._flat(content, form)
        id_ = self._check_id(parts.id, request, form)
        model = self.update if self.update is not None and id_ is not None else self.model
        return Body(id_, _validate(model, parts, form))

    def _flat(self, content: Any, form: BodyForm) -> _Parts:
        if not isinstance(content, dict):
            raise RequestError(_malformed("The body must be an object.", ""))
        members = {name: value for name, value in content.items() if name != "id"}
        for name in form.relationships:
            if name in members:
                members[name] = _number(members[name])
        return _Parts(content.get("id"), members)

    def _document(self, content: Any, form: BodyForm) -> _Parts:
        data = _plain(_object(_object(content, "", _TOP_MEMBERS).get("data"), "/data", _DATA_MEMBERS))
        if not isinstance(data.get("type"), str):
            raise RequestError(_malformed("The resource object needs a `type`.", "/data"))
        if data["type"] != self.type_name:
            raise RequestError(_conflict("type_conflict", f"Send `type`: `{self.type_name}` here.", "/data/type"))
        if not isinstance(data.get("id"), str | None):
            raise RequestError(_malformed("An id is a string.", "/data/id"))
        if self.path_id is not None and data.get("id") is None:
            raise RequestError(_malformed("The resource object needs its `id`.", "/data"))
        attributes = _plain(_object(data.get("attributes", {}), "/data/attributes"))
        linked = _plain(_object(data.get("relationships", {}), "/data/relationships"))
        problems = [form.unknown(("attributes", name)) for name in attributes if name in form.relationships]
        members = {name: value for name, value in attributes.items() if name not in form.relationships}
        for name, value in linked.items():
            problems.extend(_linkage(name, value, form, members))
        return _Parts(data.get("id"), members, problems)

    def _check_id(self, id_: Any, request: Request, form: BodyForm) -> str | None:
        pointer = "/data/id" if form.document else "/id"
        if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, int | str)):
            raise RequestError(_malformed("An id is a string.", pointer))
        own = None if id_ is None else str(id_)
        if own is None:
            return None
        if self.path_id is not None and own != str(request.path_params[self.path_id]):
            raise RequestError(_conflict("id_conflict", "The id differs from the one in the address.", pointer))
        if self.path_id is None and self.update is None:
            detail = "Ids are given by this service: leave it out."
            raise RequestError(Problem(403, "id_not_allowed", "Ids are not taken here", detail, pointer=pointer))
        return own


def body(
    type_: str,
    model: type[BodyModel],
    *,
    update: type[BodyModel] | None = None,
    path_id: str | None = None,
    example: Mapping[str, Any] | None = None,
) -> Any:
    """A dependency that gives a `Body`; see BodyReader."""
    return Depends(BodyReader(type_, model, update, path_id, example or {}))


def command_body(model: type[BodyModel], *, example: Mapping[str, Any] | None = None) -> Any:
    """A dependency that gives the `Body` of a command: flat, or a document of type `commands`."""
    return body(COMMANDS, model, example=example)


NO_BODY: Final = BodyReader(COMMANDS, NoFields)
"""Reads the body of a command that takes none: nothing, or an empty one in either form."""


async def read_bytes(request: Request) -> bytes:
    """The raw body, read once.

    Raises:
        RequestError: 413, it is too large.
    """
    known = getattr(request.state, "body_bytes", None)
    if isinstance(known, bytes):
        return known
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > strictjson.MAX_BODY_BYTES:
        raise _too_large()
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > strictjson.MAX_BODY_BYTES:
            raise _too_large()
    request.state.body_bytes = bytes(raw)
    return bytes(raw)


def _parse(raw: bytes) -> Any:
    if not raw:
        raise RequestError(Problem(400, "invalid_json", "Not JSON", "The body is empty."))
    try:
        return strictjson.parse(raw)
    except strictjson.StrictJsonError as error:
        raise RequestError(Problem(400, "invalid_json", "Not JSON", str(error))) from error


def _validate(model: type[BodyModel], parts: _Parts, form: BodyForm) -> BodyModel:
    try:
        value = model.model_validate_json(json.dumps(parts.members), strict=True)
    except ValidationError as error:
        told = {problem.pointer for problem in parts.problems}
        others = [problem for problem in explain(error, form) if problem.pointer not in told]
        raise RequestError(*[*parts.problems, *others][:MAX_PROBLEMS]) from None
    if parts.problems:
        raise RequestError(*parts.problems)
    return value


def _linkage(name: str, value: Any, form: BodyForm, members: dict[str, Any]) -> Iterator[Problem]:
    """Put the id of a relationship among the members, or say what is wrong with it."""
    field_name = f"{name}_id"
    if field_name not in form.relationships:
        yield form.unknown(("relationships", name))
        return
    expected: RelatesTo = form.relationships[field_name]
    data = value.get("data") if isinstance(value, dict) else None
    if isinstance(value, dict) and "data" in value and data is None:
        members[field_name] = None
    elif isinstance(data, dict) and data.get("type") == expected.type and isinstance(data.get("id"), str):
        members[field_name] = _number(data["id"])
    else:
        members[field_name] = None
        detail = f'Send {{"data": {{"type": "{expected.type}", "id": "..."}}}}.'
        yield form.problem((field_name,), "invalid_relationship", detail)


def _number(value: Any) -> Any:
    """A number for an id that is one, since ids are text in documents and may be in flat JSON."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


def _object(value: Any, pointer: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        missing = pointer == "/data"
        raise RequestError(_malformed(f"`{pointer or 'The body'}` must be an object.", "" if missing else pointer))
    unknown = sorted(name for name in value if known is not None and name not in known and not name.startswith("@"))
    if unknown:
        raise RequestError(_malformed(f"A document has no member `{unknown[0][:60]}` here.", pointer))
    return value


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Without the members that begin with @, which JSON:API 1.1 says to ignore."""
    return {name: member for name, member in value.items() if not name.startswith("@")}


def _malformed(detail: str, pointer: str) -> Problem:
    return Problem(400, "invalid_document", "Not a document that is taken here", detail, pointer=pointer)


def _conflict(code: str, detail: str, pointer: str) -> Problem:
    return Problem(409, code, "The body does not fit the address", detail, pointer=pointer)


def _too_large() -> RequestError:
    detail = f"At most {strictjson.MAX_BODY_BYTES} bytes are taken."
    return RequestError(Problem(413, "body_too_large", "The body is too large", detail))
