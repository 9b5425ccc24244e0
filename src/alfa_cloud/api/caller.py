"""Who asks: told by headers, not proven."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from alfa_cloud.api.jsonapi.errors import RequestError, bad_header
from alfa_cloud.services import operations

MAX_ACTOR_LENGTH: Final = 200

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Caller(operations.Caller):
    """Who asks, and from where; it passes unchanged to the services."""

    address: str = ""


def caller_of(request: Request) -> Caller:
    """The caller of a request.

    Raises:
        RequestError: 400, `X-Actor` is not what it should be.
    """
    actor = request.headers.get("x-actor")
    name = None if actor is None else _decode(actor)
    return Caller(actor=name, request_id=request.state.request_id, address=str(request.state.peer.address))


def _decode(actor: str) -> str:
    """Text out of percent-encoded UTF-8."""
    try:
        if _BROKEN_ESCAPE.search(actor):
            raise ValueError("a broken escape")
        text = unquote_to_bytes(actor.encode("ascii")).decode("utf-8")
    except ValueError as error:
        raise RequestError(bad_header("X-Actor", "Percent-encode the name's UTF-8 (encodeURIComponent).")) from error
    if len(text) > MAX_ACTOR_LENGTH:
        raise RequestError(bad_header("X-Actor", f"At most {MAX_ACTOR_LENGTH} characters."))
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise RequestError(bad_header("X-Actor", "No control characters."))
    return text
