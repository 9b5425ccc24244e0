"""Where a field stands in the body that was sent: pointers that follow its form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, core_schema

from alfa_cloud.api.jsonapi.errors import Problem
from alfa_cloud.api.jsonapi.fields import RelatesTo, relationship_name

_CODES: Final = {"missing": "required", "extra_forbidden": "unknown_field"}
_TITLES: Final = {"required": "A field is missing", "unknown_field": "Unknown field"}
_QUOTING: Final = ("uuid_parsing", "date_from_datetime_parsing", "date_parsing", "datetime_parsing", "url_parsing")
"""Pydantic's errors whose message may quote what was sent."""

_BUILT_IN: Final = frozenset(get_args(core_schema.ErrorType))

Loc = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class BodyForm:
    """The form of a request's body.

    Args:
        content: the JSON value as it was sent.
        relationships: by field name (`server_id`).
    """

    document: bool
    content: Any
    relationships: Mapping[str, RelatesTo]

    def pointer(self, loc: Loc) -> str:
        """The JSON Pointer to a field, or to the nearest thing around it that exists.

        Args:
            loc: the field's name, also the relationship's, and the way inside it.
        """
        return _encode(_existing(self.content, self._path(loc)))

    def problem(self, loc: Loc, code: str, detail: str, meta: Mapping[str, Any] | None = None) -> Problem:
        """A problem of one field."""
        title = _TITLES.get(code, "Invalid value")
        name = str(self._path(loc)[2 if self.document else 0])[:100]
        members = {"field": name, **(meta or {})}
        return Problem(422, code, title, detail, pointer=self.pointer(loc), meta=members)

    def unknown(self, where: tuple[str, str]) -> Problem:
        """A problem of a member of the resource object that is not known there.

        Args:
            where: (`attributes` or `relationships`, name).
        """
        section, name = where
        hint = f"Send `{relationship_name(name)}` as a relationship." if name in self.relationships else "Leave it out."
        pointer = _encode(("data", section, name))
        meta = {"field": name[:100]}
        return Problem(422, "unknown_field", _TITLES["unknown_field"], hint, pointer=pointer, meta=meta)

    def _path(self, loc: Loc) -> Loc:
        first, rest = str(loc[0]), loc[1:]
        named = first if first in self.relationships else f"{first}_id"
        if named in self.relationships:
            return ("data", "relationships", relationship_name(named)) if self.document else (named,)
        return ("data", "attributes", first, *rest) if self.document else (first, *rest)


def explain(error: ValidationError, form: BodyForm) -> Iterator[Problem]:
    """A problem for each wrong field; none quotes what was sent."""
    for details in error.errors(include_url=False, include_input=False):
        code = code_of(details)
        detail = message_of(details)
        if code == "unknown_field" and details["loc"] == ("data",) and not form.document:
            detail = "A JSON:API document needs `Content-Type: application/vnd.api+json`."
        yield form.problem(details["loc"] or ("",), code, detail)


def code_of(details: ErrorDetails) -> str:
    """A stable code: that of a PydanticCustomError which a validator of ours raised, else a general one."""
    kind = details["type"]
    if kind in _CODES:
        return _CODES[kind]
    return "invalid_value" if kind in _BUILT_IN else kind


def message_of(details: ErrorDetails) -> str:
    """What a person can act on."""
    kind, message = details["type"], details["msg"]
    if kind == "missing":
        return f"`{str(details['loc'][-1])[:100]}` is needed."
    if kind == "extra_forbidden":
        return "This field is not known here: leave it out."
    if kind in _QUOTING or (kind == "value_error" and "reason" in details.get("ctx", {})):
        message = message.split(":")[0].split(", ")[0]
    return message.removeprefix("Value error, ").rstrip(".")[:500] + "."


def _existing(content: Any, path: Loc) -> Loc:
    """The longest part of the path that leads to something."""
    here = content
    for depth, key in enumerate(path):
        within = isinstance(here, list) and isinstance(key, int) and key < len(here)
        if not within and not (isinstance(here, dict) and key in here):
            return path[:depth]
        here = here[key]
    return path


def _encode(path: Loc) -> str:
    """RFC 6901."""
    return "".join("/" + str(key)[:100].replace("~", "~0").replace("/", "~1") for key in path)
