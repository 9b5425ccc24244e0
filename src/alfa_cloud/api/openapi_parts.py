"""Parts of the OpenAPI document that routes refer to."""

from __future__ import annotations

from typing import Any, Final

from alfa_cloud.api.jsonapi.negotiation import JSONAPI
from alfa_cloud.api.openapi_examples import error_example

_TEXT: Final = {"type": "string"}

ERRORS: Final[dict[str, Any]] = {
    "Error": {
        "type": "object",
        "description": "One thing that is wrong.",
        "required": ["id", "status", "code", "title", "detail", "meta"],
        "properties": {
            "id": {**_TEXT, "description": "Of this occurrence."},
            "status": {**_TEXT, "description": "The HTTP status, as text."},
            "code": {**_TEXT, "description": "Stable: what programs go by."},
            "title": {**_TEXT, "description": "The same for every occurrence of the code."},
            "detail": {**_TEXT, "description": "What a person can do about it."},
            "source": {
                "type": "object",
                "properties": {"pointer": _TEXT, "parameter": _TEXT, "header": _TEXT},
            },
            "meta": {"type": "object", "required": ["request_id"], "properties": {"request_id": _TEXT}},
        },
    },
    "ErrorDocument": {
        "type": "object",
        "description": "What is answered in place of data.",
        "required": ["errors"],
        "properties": {
            "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Error"}},
            "jsonapi": {"type": "object", "properties": {"version": _TEXT}},
        },
    },
}

_DESCRIPTIONS: Final = {
    "400": "The request cannot be understood: not JSON, an unknown query parameter, a wrong header.",
    "401": "The administrator's login is needed, or wrong.",
    "403": "The network, or the page that a browser acts for, is not allowed.",
    "404": "There is no such thing.",
    "406": "None of the forms that this address has is wanted.",
    "409": "The present state does not allow it, or `type` or `id` do not fit the address.",
    "413": "The body is larger than 64 KiB.",
    "415": "The body comes in a media type, or encoding, that is not taken.",
    "422": "Fields are wrong; each has an error object with its pointer.",
    "429": "Too many failed logins, or too many that follow logs at once; `Retry-After` says when to try again.",
    "500": "This failed in the service.",
    "503": "The service cannot do it now; `Retry-After` says when to ask again.",
}

ANSWERS: Final = {
    "200": "What was asked for.",
    "201": "Made: the resource, while the operation that builds it goes on.",
    "202": "Accepted: the operation, which goes on; follow it at `Location`.",
    "204": "Done; there is nothing to tell.",
}
"""What good answers are called that have no description of their own."""

_LOCATION: Final = {"description": "The address of what was made or begun.", "schema": _TEXT}
_RETRY_AFTER: Final = {"description": "Seconds to wait before asking again.", "schema": {"type": "integer"}}


def answer_headers(status: str, *, is_resource: bool) -> dict[str, Any]:
    """The headers of a good answer that a script goes by."""
    names = {"201": ("Location",), "202": ("Location", "Content-Location")}.get(status, ()) if is_resource else ()
    return dict.fromkeys(names, _LOCATION)


def _response(status: str, text: str) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/ErrorDocument"}}
    if (example := error_example(status)) is not None:
        content["example"] = example
    described: dict[str, Any] = {"description": text, "content": {JSONAPI: content}}
    return {**described, "headers": {"Retry-After": _RETRY_AFTER}} if status in ("429", "503") else described


RESPONSES: Final = {status: _response(status, text) for status, text in _DESCRIPTIONS.items()}

SECURITY: Final = {
    "basic": {"type": "http", "scheme": "basic", "description": "The administrator of this API, in UTF-8."}
}

HEADERS: Final[dict[str, Any]] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": {
            "type": "string",
            "pattern": "^[\\x21-\\x7e]{1,255}$",
            "examples": ["7c5aa5e0-6a0d-4a3c-8f0e-3d1f0b8f2a11"],
        },
        "description": "The same key and request: the same answer for 24 h. The same key for another request: 422.",
    },
    "Actor": {
        "name": "X-Actor",
        "in": "header",
        "required": False,
        "schema": {
            "type": "string",
            "pattern": "^([\\x20-\\x24\\x26-\\x7e]|%[0-9A-Fa-f]{2})*$",
            "examples": ["anna", "%D0%90%D0%BD%D0%BD%D0%B0"],
        },
        "description": "Who clicked, kept as told: percent-encoded UTF-8 (`encodeURIComponent`), up to 200 characters.",
    },
    "LastEventId": {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "pattern": "^[0-9]{1,18}$", "examples": ["17"]},
        "description": "The id of the last event that was read: an event stream goes on after it.",
    },
}
