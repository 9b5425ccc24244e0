"""Which media type a request brings and which it wants; how JSON is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from enum import StrEnum
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse

from alfa_cloud.api.jsonapi.errors import Problem, RequestError

JSONAPI: Final = "application/vnd.api+json"
JSON: Final = "application/json"

_ESCAPES: Final = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


class Media(StrEnum):
    """The forms an answer can have."""

    JSONAPI = "jsonapi"
    SSE = "sse"
    TEXT = "text"


MEDIA_TYPES: Final = {Media.JSONAPI: JSONAPI, Media.SSE: "text/event-stream", Media.TEXT: "text/plain"}
_RANGES: Final = {
    Media.JSONAPI: {JSONAPI, JSON, "application/*", "*/*"},
    Media.SSE: {"text/event-stream", "text/*", "*/*"},
    Media.TEXT: {"text/plain", "text/*", "*/*"},
}


@dataclass(frozen=True, slots=True)
class Range:
    """One entry of an Accept header."""

    media_type: str
    quality: float
    parameters: dict[str, str]

    @property
    def usable(self) -> bool:
        """Whether it asks for something that exists: JSON:API knows no parameter but these, and no extension here."""
        return self.media_type != JSONAPI or not (set(self.parameters) - {"profile"})


def parse_media_type(text: str) -> tuple[str, dict[str, str]]:
    """The type in lower case, and its parameters by lower-case name."""
    message = Message()
    message["content-type"] = text.replace("\r", " ").replace("\n", " ")
    parameters = message.get_params(failobj=[], unquote=True)
    return text.partition(";")[0].strip().lower(), {str(k).lower(): str(v) for k, v in parameters[1:]}


def parse_accept(text: str) -> list[Range]:
    """The entries of an Accept header that have a quality above zero, the best first."""
    ranges = []
    for entry in _split(text):
        media_type, parameters = parse_media_type(entry)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if 0.0 < quality <= 1.0:
            ranges.append(Range(media_type, quality, parameters))
    return sorted(ranges, key=lambda entry: -entry.quality)


def _split(text: str) -> list[str]:
    """Entries by comma, but for commas within quotes."""
    entries, quoted = [""], False
    for character in text:
        quoted ^= character == '"'
        if character == "," and not quoted:
            entries.append("")
        else:
            entries[-1] += character
    return [entry.strip() for entry in entries if entry.strip()]


def choose(accept: str | None, offered: tuple[Media, ...]) -> Media:
    """The form to answer in: JSON:API wherever the header names any JSON, or anything at all.

    Raises:
        RequestError: 406, none of the offered forms is wanted.
    """
    if not accept or not accept.strip():
        return offered[0]
    wanted = parse_accept(accept)
    named = [entry.usable for entry in wanted if entry.media_type == JSONAPI]
    if any(named) or not named:
        for media in _matching(wanted, offered):
            return media
    names = ", ".join(MEDIA_TYPES[media] for media in offered)
    detail = f"This address answers in: {names}. JSON:API takes no media type parameter but profile."
    raise RequestError(Problem(406, "not_acceptable", "Not acceptable", detail, header="Accept"))


def _matching(wanted: list[Range], offered: tuple[Media, ...]) -> Iterator[Media]:
    if Media.JSONAPI in offered and any(entry.media_type in _RANGES[Media.JSONAPI] for entry in wanted):
        yield Media.JSONAPI
    for entry in wanted:
        for media in (Media.TEXT, Media.SSE):
            if media in offered and entry.media_type in _RANGES[media]:
                yield media


def check_content_type(request: Request) -> Media | None:
    """JSONAPI for a document, None for flat JSON.

    Raises:
        RequestError: 415, another media type, a parameter that it must not have, or an encoded body.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise _unsupported("Send the body as it is, without compression.", "Content-Encoding")
    media_type, parameters = parse_media_type(request.headers.get("content-type", ""))
    if media_type == JSONAPI:
        if set(parameters) - {"profile"}:
            raise _unsupported(f"{JSONAPI} takes no media type parameter but profile, and no extension is known here.")
        return Media.JSONAPI
    if media_type == JSON:
        if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
            raise _unsupported("JSON is UTF-8.")
        return None
    raise _unsupported(f"Send {JSONAPI}, or {JSON} with flat attributes (curl: -H 'Content-Type: {JSON}').")


def _unsupported(detail: str, header: str = "Content-Type") -> RequestError:
    return RequestError(Problem(415, "unsupported_media_type", "Unsupported media type", detail, header=header))


def dump_json(content: Any) -> str:
    """JSON text without a character that means something in HTML or ends a line in JavaScript."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():  # far faster than str.translate
        text = text.replace(character, escape)
    return text


class JsonApiResponse(JSONResponse):
    """An answer in JSON:API; `content` is kept, so that `fields[...]` can thin it before it leaves."""

    media_type = JSONAPI

    def __init__(self, content: Any = None, status_code: int = 200, **options: Any) -> None:
        self.content = content
        super().__init__(content, status_code, **options)

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return b"" if content is None else dump_json(content).encode()

    def replace(self, content: Any, status_code: int | None = None) -> None:
        """Answer something else; headers that describe no body stay."""
        self.content = content
        self.status_code = status_code or self.status_code
        self.body = self.render(content)
        self.headers["content-length"] = str(len(self.body))
