"""The API as a script uses it: one login, documents, and patience with an operation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

LOG_WAIT_S: Final = 20
PATIENCE_S: Final = 120
"""How long an API that does not answer is waited for, while an operation goes on."""
PAUSE_S: Final = 2.0
AWAY: Final = frozenset({429, 502, 503, 504})
"""What a proxy or the API answers while it cannot answer yet."""
PAGE_SIZE: Final = 200


class CallError(Exception):
    """A call that was refused or did not get through; the message is for the person who made it."""


class AwayError(CallError):
    """A call that may get through in a moment.

    Args:
        after_s: when, as far as that is told.
    """

    def __init__(self, message: str, after_s: float = 0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Cloud:
    """One API.

    Args:
        transport: in tests, the way to it.
    """

    def __init__(self, url: str, login: str, password: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            auth=httpx.BasicAuth(login.encode(), password.encode()),
            timeout=httpx.Timeout(30, read=LOG_WAIT_S + 30),
            headers={"Accept": "application/vnd.api+json", "User-Agent": "alfa-cloud"},
            transport=transport,
        )
        self._answered = False

    def close(self) -> None:
        """Its connections are closed."""
        self._http.close()

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """The document that a call answers; None where the answer has no body.

        Raises:
            AwayError: it did not get through now.
            CallError: it was refused, or cannot get through.
        """
        options: dict[str, Any] = {"params": dict(query)} if query else {}
        if body is not None:
            options["json"] = body
        try:
            answer = self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AwayError(f"{self._http.base_url} does not answer: {error}") from error
        if answer.status_code in AWAY:
            raise AwayError("\n".join(_problems(answer)), _retry_after(answer))
        if answer.is_error:
            raise CallError("\n".join(_problems(answer)))
        try:
            found = answer.json() if answer.content else None
        except ValueError as error:
            raise CallError(f"{self._http.base_url} is not the API: its answer is no JSON.") from error
        self._answered = True
        return found

    def pages(self, path: str, query: Mapping[str, Any]) -> Iterator[Any]:
        """Every resource of a list.

        Raises:
            CallError: see `call`.
        """
        number = 1
        while True:
            page = self.call("GET", path, query={"page[size]": PAGE_SIZE, **query, "page[number]": number})
            yield from page["data"]
            if "next" not in page["links"]:
                return
            number += 1

    def find(self, kind: str, wish: str) -> str:
        """The id of the `clients` or `servers` resource of this name, or else of this id: a name may be digits only.
        The name of a deleted client counts where no other has it.

        Raises:
            CallError: there is none, or several deleted ones had that name.
        """
        found = self._named(kind, wish, {"filter[q]": wish} if kind == "clients" else {"filter[active]": "all"})
        if found:
            return found[0]
        if wish.isascii() and wish.isdecimal():
            return wish
        deleted = (
            self._named(kind, wish, {"filter[q]": wish, "filter[status]": "archived"}) if kind == "clients" else []
        )
        if len(deleted) > 1:
            raise CallError(f"Several deleted clients were named {wish}; give the id of one: {', '.join(deleted)}.")
        if not deleted:
            raise CallError(f"There is no {kind.removesuffix('s')} named {wish}.")
        return deleted[0]

    def _named(self, kind: str, name: str, query: Mapping[str, str]) -> list[str]:
        return [str(row["id"]) for row in self.pages(f"/{kind}", query) if row["attributes"]["name"] == name]

    def follow(self, operation_id: str) -> Iterator[Any]:
        """Each next part of an operation's log, to its end; an API that is away for a while is waited for.

        Raises:
            CallError: there is no such operation, or the API stayed away.
        """
        path = f"/operations/{quote(operation_id, safe='')}/log"
        after = 0
        while True:
            part = self._read(path, {"after_seq": after, "wait_s": LOG_WAIT_S})
            attributes = part["data"]["attributes"]
            yield attributes
            if attributes["lines"]:
                after = attributes["lines"][-1]["seq"]
            if "next" not in part["links"]:
                return

    def operation(self, operation_id: str) -> Any:
        """The resource of an operation; an API that is away for a while is waited for.

        Raises:
            CallError: there is none, or the API stayed away.
        """
        return self._read(f"/operations/{quote(operation_id, safe='')}")["data"]

    def _read(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """A document; an API that has answered before, and is away now, is waited for."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.call("GET", path, query=query)
            except AwayError as error:
                pause_s = max(PAUSE_S, error.after_s)
                if not self._answered or time.monotonic() + pause_s > until:
                    raise
                time.sleep(pause_s)


def _retry_after(answer: httpx.Response) -> float:
    """The seconds that an answer asks to wait; 0 where it says nothing."""
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else 0


def _problems(answer: httpx.Response) -> Iterator[str]:
    """Why a call was refused, a line for each error."""
    try:
        errors = answer.json()["errors"]
    except (ValueError, KeyError, TypeError):
        yield f"HTTP {answer.status_code}: {answer.text[:200]}"
        return
    for error in errors:
        source = error.get("source", {})
        place = source.get("pointer") or source.get("parameter") or source.get("header")
        place = error.get("meta", {}).get("field", place)
        yield f"{place}: {error['detail']}" if place else str(error["detail"])
