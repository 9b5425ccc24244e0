"""Streams: events with ids and resume, keep-alive, plain text, and an end when the client goes."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from alfa_cloud.api.streams import Event
from tests.api.conftest import scope_of
from tests.api.toy import Toy

LOG = f"/works/{uuid4()}/log"


class Reader:
    """Reads an answer message by message, as a server would send it."""

    def __init__(self, app: FastAPI, **headers: str) -> None:
        self.gone = asyncio.Event()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(app(scope_of(LOG, b"", **headers), self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.messages.put(dict(message))

    async def body(self) -> str:
        message = await asyncio.wait_for(self.messages.get(), 5)
        return str(message["body"].decode())


async def test_events_come_as_they_happen_and_go_on_from_the_last_one(app: FastAPI, toy: Toy) -> None:
    reader = Reader(app, accept="text/event-stream", last_event_id="1")
    start = await asyncio.wait_for(reader.messages.get(), 5)
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert await reader.body() == 'id: 2\nevent: line\ndata: {"text":"\\u003cb\\u003e2\\n\\u003c/b\\u003e"}\n\n'
    assert (await reader.body()).startswith("id: 3\n")
    assert await reader.body() == ": keep-alive\n\n"
    toy.ended.set()
    while (last := await reader.body()).startswith(":"):
        pass
    assert last == 'event: completed\ndata: {"completed":"ok"}\n\n'
    await asyncio.wait_for(reader.task, 5)
    assert toy.closed_streams == 1


async def test_a_stream_ends_when_its_client_goes(app: FastAPI, toy: Toy) -> None:
    reader = Reader(app, accept="text/event-stream")
    for _ in range(4):
        await asyncio.wait_for(reader.messages.get(), 5)
    reader.gone.set()
    await asyncio.wait_for(reader.task, 5)
    assert toy.closed_streams == 1


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 19, "١"])
async def test_a_last_event_id_that_is_no_number_is_400(client: httpx.AsyncClient, given: str) -> None:
    headers: Any = {"Accept": "text/event-stream", "Last-Event-ID": given.encode()}
    answer = await client.get(LOG, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["source"] == {"header": "Last-Event-ID"}


async def test_plain_text_and_json_of_the_same_address(client: httpx.AsyncClient) -> None:
    answer = await client.get(LOG, headers={"Accept": "text/plain"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "первая\n<second>\n"
    assert (await client.get(LOG)).json()["data"]["type"] == "works"


async def test_head_starts_no_stream(client: httpx.AsyncClient, toy: Toy) -> None:
    answer = await client.head(LOG, headers={"Accept": "text/event-stream"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert toy.closed_streams == 0


def test_an_event_is_one_line_of_data() -> None:
    encoded = Event(7, "line", {"text": "a\r\nb\u2028c\0"}).encode()
    assert encoded == b'id: 7\nevent: line\ndata: {"text":"a\\r\\nb\\u2028c\\u0000"}\n\n'
