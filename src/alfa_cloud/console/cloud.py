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
PAGE_SIZE: Final = 200


class CallError(Exception):
    """A call that was refused or did not get through; the message is for the person who made it."""


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

    def close(self) -> None:
        """Its connections are closed."""
        self._http.close()

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """The document that a call answers; None where the answer has no body.

        Raises:
            CallError: it was refused, or did not get through.
        """
        options: dict[str, Any] = {"params": dict(query)} if query else {}
        if body is not None:
            options["json"] = body
        try:
            answer = self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CallError(f"{self._http.base_url} does not answer: {error}") from error
        if answer.is_error:
            raise CallError("\n".join(_problems(answer)))
        return answer.json() if answer.content else None

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

        Raises:
            CallError: there is none.
        """
        query = {"filter[q]": wish} if kind == "clients" else {"filter[active]": "all"}
        for row in self.pages(f"/{kind}", query):
            if row["attributes"]["name"] == wish:
                return str(row["id"])
        if wish.isascii() and wish.isdecimal():
            return wish
        raise CallError(f"There is no {kind.removesuffix('s')} named {wish}.")

    def follow(self, operation_id: str) -> Iterator[Any]:
        """Each next part of an operation's log, to its end; an API that is away for a while is waited for.

        Raises:
            CallError: there is no such operation, or the API stayed away.
        """
        path = f"/operations/{quote(operation_id, safe='')}/log"
        after, last_answer = 0, time.monotonic()
        while True:
            try:
                part = self.call("GET", path, query={"after_seq": after, "wait_s": LOG_WAIT_S})
            except CallError as error:
                if not isinstance(error.__cause__, httpx.TransportError) or after == last_answer == 0:
                    raise
                if time.monotonic() - last_answer > PATIENCE_S:
                    raise
                time.sleep(PAUSE_S)
                continue
            last_answer = time.monotonic()
            attributes = part["data"]["attributes"]
            yield attributes
            if attributes["lines"]:
                after = attributes["lines"][-1]["seq"]
            if "next" not in part["links"]:
                return

    def operation(self, operation_id: str) -> Any:
        """The resource of an operation.

        Raises:
            CallError: there is none.
        """
        return self.call("GET", f"/operations/{quote(operation_id, safe='')}")["data"]


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
