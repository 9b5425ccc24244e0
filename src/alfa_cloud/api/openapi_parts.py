"""Parts of the OpenAPI document that routes refer to."""

from __future__ import annotations

from typing import Any, Final

from alfa_cloud.api.jsonapi.negotiation import JSONAPI

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
    "500": "This failed in the service.",
    "503": "The service cannot do it now; `Retry-After` says when to ask again.",
}

RESPONSES: Final = {
    status: {
        "description": text,
        "content": {JSONAPI: {"schema": {"$ref": "#/components/schemas/ErrorDocument"}}},
    }
    for status, text in _DESCRIPTIONS.items()
}

SECURITY: Final = {
    "basic": {"type": "http", "scheme": "basic", "description": "The administrator of this API, in UTF-8."}
}

HEADERS: Final[dict[str, Any]] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "description": "The same key and request: the same answer for 24 h. The same key for another request: 422.",
    },
    "Actor": {
        "name": "X-Actor",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "Who clicked: percent-encoded UTF-8, at most 200 characters.",
    },
}
