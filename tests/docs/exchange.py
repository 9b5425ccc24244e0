"""Calls of a page, and how they are shown: shortened to what is asked for, and the same in every run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
from uuid6 import uuid7

PATIENCE_S: Final = 60
MOMENT: Final = "2026-12-01T09:30:00Z"
SHOWN_HEADERS: Final = ("Location", "WWW-Authenticate", "Retry-After")

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LINK: Final = re.compile(r"expires=\d+&signature=\w+")
_SHA256: Final = re.compile(r'(?<="sha256": ")[0-9a-f]{64}(?=")')
_MOMENT: Final = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")


class Steady:
    """What differs from run to run is made the same; other texts are replaced as told."""

    def __init__(self, replaced: dict[str, str]) -> None:
        self.replaced = replaced
        self.ids: dict[str, str] = {}
        self._numbers = count(1)

    def text(self, text: str) -> str:
        """The text as each run gives it."""
        for found, stands in self.replaced.items():
            text = text.replace(found, stands)
        text = _SHA256.sub("9f86d081884c7d65" * 4, _LINK.sub("expires=1799999999&signature=5d41402abc4b2a76", text))
        return _MOMENT.sub(MOMENT, _UUID.sub(self._id, text))

    def value(self, value: Any) -> Any:
        """The JSON value as each run gives it."""
        return json.loads(self.text(json.dumps(value, ensure_ascii=False)))

    def _id(self, match: re.Match[str]) -> str:
        if match[0] not in self.ids:
            self.ids[match[0]] = f"019aa5e0-6a0d-7a3c-8f0e-{next(self._numbers):012}"
        return self.ids[match[0]]


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    steady: Steady
    request: str
    """As a block of the page."""
    status: int
    headers: httpx.Headers
    document: Any

    @property
    def id(self) -> str:
        """Of the resource that was answered."""
        return str(self.document["data"]["id"])

    @property
    def operation(self) -> str:
        """The id of the operation that brings about what was answered."""
        return str(self.document["data"]["relationships"]["operation"]["data"]["id"])

    def answer(self, *wanted: str, items: int | None = None) -> str:
        """The answer as a block of the page.

        Args:
            wanted: paths of members, with `*` for each item of a list; everything, where none is given.
            items: the most that is shown of a list within.
        """
        document = self.document if not wanted else picked(self.document, [path.split(".") for path in wanted])
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {self.headers[name]}" for name in SHOWN_HEADERS if name in self.headers]
        body = json.dumps(shortened(document, items), ensure_ascii=False, indent=2)
        return self.steady.text(block("\n".join([*lines, "", body])))


def block(text: str) -> str:
    """A block of HTTP on the page."""
    return f"```http\n{text}\n```"


def picked(value: Any, paths: list[list[str]]) -> Any:
    """Only the members that the paths lead to."""
    if any(not path for path in paths):
        return value
    if isinstance(value, list):
        return [picked(item, [path[1:] for path in paths if path[0] == "*"]) for item in value]
    found = {}
    for name, member in value.items():
        below = [path[1:] for path in paths if path[0] == name]
        if below:
            found[name] = picked(member, below)
    return found


def shortened(value: Any, items: int | None) -> Any:
    """The same with at most so many items in each list."""
    if isinstance(value, list):
        return [shortened(item, items) for item in value[:items]]
    if isinstance(value, dict):
        return {name: shortened(member, items) for name, member in value.items()}
    return value


class Calls:
    """What a page can do: each call is made, and gives an `Exchange`."""

    def __init__(self, url: str, login: tuple[str, str], steady: Steady) -> None:
        self.steady = steady
        auth = httpx.BasicAuth(*(text.encode() for text in login))
        accept = {"Accept": "application/vnd.api+json"}
        self.http = httpx.Client(base_url=url, auth=auth, headers=accept, timeout=70, trust_env=False)
        self.stranger = httpx.Client(base_url=url, headers=accept, timeout=70, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.stranger.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: bool = False,
        actor: str = "",
        login: bool = True,
        until: str = "",
    ) -> Exchange:
        """Make a call.

        Args:
            key: with an Idempotency-Key.
            until: made again until this attribute is there: not null, and no empty list.
        """
        headers = {"Idempotency-Key": str(uuid7())} if key else {}
        headers |= {"X-Actor": quote(actor)} if actor else {}
        http = self.http if login else self.stranger
        answer = _patiently(lambda: http.request(method, path, json=body, headers=headers), until)
        shown = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if body is not None:
            shown += ["Content-Type: application/json", "", json.dumps(body, ensure_ascii=False, indent=2)]
        document = answer.json() if answer.content else None
        request = self.steady.text(block("\n".join(shown)))
        return Exchange(self.steady, request, answer.status_code, answer.headers, document)

    def events(self, client_id: str, most: int = 3) -> str:
        """The first events of a client, as a block of the page."""
        found: list[str] = []
        headers = {"Accept": "text/event-stream", "Last-Event-ID": "0"}
        with self.http.stream("GET", "/events", headers=headers) as answer:
            rest = ""
            for text in answer.iter_text():
                *events, rest = (rest + text).split("\n\n")
                found += [event for event in events if f'"client":"{client_id}"' in event]
                if len(found) >= most:
                    break
        shown = ["GET /events HTTP/1.1", "Accept: text/event-stream", "", *(f"{event}\n" for event in found[:most])]
        return self.steady.text(block("\n".join(shown).rstrip()))


def _patiently(ask: Callable[[], httpx.Response], until: str) -> httpx.Response:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = ask()
        if not until or answer.json()["data"]["attributes"][until] not in (None, []):
            return answer
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
