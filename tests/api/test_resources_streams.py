"""Logs and events as they happen, through a real server: long polls, event streams, plain text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from alfa_cloud.db import SessionFactory, make_session_factory
from alfa_cloud.events import LOG_CHANNEL
from alfa_cloud.models import Operation, OperationLine
from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis
from alfa_cloud.specs import OperationKind
from alfa_cloud.vault import Vault
from tests.api.resources import Described
from tests.factories import make_client, make_operation, make_server
from tests.system import System

SSE = {"Accept": "text/event-stream"}
TEXT = {"Accept": "text/plain"}


class Running:
    """A service without a worker, and what a worker would write."""

    def __init__(self, system: System, sessions: SessionFactory, vault: Vault, described: Described) -> None:
        self.http = system.http
        self.described = described
        self.sessions = sessions
        self.vault = vault

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, which is as the OpenAPI document tells."""
        answer = await self.http.request(method, path, **options)
        self.described.check(answer)
        return answer

    async def creation(self) -> tuple[int, UUID]:
        """A client, and the queued operation that creates it."""
        async with self.sessions.begin() as session:
            server = await make_server(session)
            client = await make_client(session, self.vault, server, status="creating")
            kind = OperationKind.CREATE_CLIENT
            row = await make_operation(session, kind=kind, client_id=client.id, server_id=server.id)
        return client.id, row.id

    async def write(self, operation_id: UUID, *texts: str, state: str = "running") -> None:
        """Lines, and a state."""
        async with self.sessions.begin() as session:
            row = await session.get_one(Operation, operation_id)
            for line in texts:
                row.last_seq += 1
                session.add(OperationLine(operation_id=row.id, seq=row.last_seq, stream="stdout", text=line))
            row.state = state
            notify = text("SELECT pg_notify(:channel, :id)")
            await session.execute(notify, {"channel": LOG_CHANNEL, "id": str(operation_id)})

    @asynccontextmanager
    async def events(self, path: str, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
        """The events of a stream, as they come."""
        async with self.http.stream("GET", path, headers={**SSE, **headers}) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield parsed(answer)


async def parsed(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    event: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            event[name] = value
        elif not line and event:
            yield event
            event = {}


async def after(events: AsyncIterator[dict[str, str]], number: int) -> list[dict[str, str]]:
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(number)]


@pytest.fixture(scope="module")
async def running(
    postgres: EmbeddedPostgres,
    redis_store: EmbeddedRedis,
    template: str,
    vault: Vault,
    secret_key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """The API as a process."""
    postgres.create_database("streams", template=template)
    url = postgres.url_for("streams")
    engine = create_async_engine(url, poolclass=NullPool)
    stores = {"database_url": url, "redis_url": redis_store.url, "secret_key": secret_key}
    async with System(tmp_path_factory.mktemp("streams"), settings={}, **stores) as system:
        described = Described(await system.call("GET", "/openapi.json", status=200))
        yield Running(system, make_session_factory(engine), vault, described)
    await engine.dispose()
    postgres.drop_database("streams")


async def test_a_long_poll_ends_with_a_line(running: Running) -> None:
    client_id, operation_id = await running.creation()
    poll = asyncio.create_task(running.ask("GET", f"/clients/{client_id}/create_log?wait_s=30"))
    await asyncio.sleep(0.3)
    assert not poll.done()
    await running.write(operation_id, "hello")
    async with asyncio.timeout(5):
        page = (await poll).json()
    assert [line["text"] for line in page["data"]["attributes"]["lines"]] == ["hello"]
    assert page["links"]["next"] == f"/clients/{client_id}/create_log?after_seq=1&wait_s=30"
    poll = asyncio.create_task(running.ask("GET", page["links"]["next"]))
    await running.write(operation_id, state="ok")
    async with asyncio.timeout(10):
        page = (await poll).json()
    assert (page["data"]["attributes"]["completed"], "next" in page["links"]) == ("ok", False)


async def test_a_stream_goes_on_over_a_retry_without_a_gap(running: Running) -> None:
    client_id, operation_id = await running.creation()
    path = f"/clients/{client_id}/create_log"
    async with running.events(path) as events:
        await running.write(operation_id, "one", "<two>\r\nx")
        first, second = await after(events, 2)
        assert (first["id"], first["event"], json.loads(first["data"])["text"]) == ("1", "line", "one")
        assert json.loads(second["data"])["text"] == "<two>\r\nx"
        await running.write(operation_id, "three", state="error")
        third, end = await after(events, 2)
        assert third["id"] == "3"
        assert (end["event"], "id" in end, json.loads(end["data"])["completed"]) == ("completed", False, "error")
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    retried = (await running.ask("POST", f"/operations/{operation_id}/retry")).json()["data"]["id"]
    async with running.events(path, **{"Last-Event-ID": "2"}) as events:
        await running.write(UUID(retried), "four", state="ok")
        rest = await after(events, 3)
    assert [event.get("id") for event in rest] == ["3", "4", None]
    assert json.loads(rest[2]["data"]) == {"completed": "ok", "state": "ok", "error": None}
    async with running.events(path, **{"Last-Event-ID": "999999999999"}) as events:
        assert (await after(events, 1))[0]["event"] == "completed"


async def test_plain_text_is_what_there_is_or_follows_to_the_end(running: Running) -> None:
    client_id, operation_id = await running.creation()
    await running.write(operation_id, "one")
    path = f"/clients/{client_id}/create_log"
    answer = await running.ask("GET", path, headers=TEXT)
    assert (answer.headers["content-type"], answer.text) == ("text/plain; charset=utf-8", "one\n")
    follow = asyncio.create_task(running.ask("GET", f"{path}?follow_log=true", headers=TEXT))
    await asyncio.sleep(0.2)
    assert not follow.done()
    await running.write(operation_id, "two", state="error")
    async with asyncio.timeout(10):
        assert (await follow).text == "one\ntwo\ncompleted: error\n"
    missing: dict[str, Any] = {"headers": TEXT, "params": {"follow_log": "true"}}
    assert (await running.ask("GET", "/clients/999/create_log", **missing)).status_code == 404


async def test_events_tell_every_change_and_go_on_after_the_last_one(running: Running) -> None:
    async with running.events("/events") as events:
        client_id, operation_id = await running.creation()
        await running.write(operation_id)
        queued, started = await after(events, 2)
    told = json.loads(queued["data"])
    assert (queued["event"], told["operation"], told["state"]) == ("operation", str(operation_id), "queued")
    assert (told["kind"], told["client"]) == ("create_client", str(client_id))
    assert json.loads(started["data"])["state"] == "running"
    await running.write(operation_id, state="error")
    async with running.events("/events", **{"Last-Event-ID": started["id"]}) as events:
        (ended,) = await after(events, 1)
    assert json.loads(ended["data"])["state"] == "error"
    assert int(ended["id"]) > int(started["id"]) > int(queued["id"])
    for wrong in ("x", "-1"):
        refused = await running.ask("GET", "/events", headers={**SSE, "Last-Event-ID": wrong})
        assert refused.json()["errors"][0]["source"] == {"header": "Last-Event-ID"}
    assert (await running.ask("GET", "/events", headers={"Accept": "application/json"})).status_code == 406


async def test_a_command_waits_for_the_end(running: Running) -> None:
    client_id, operation_id = await running.creation()
    await running.write(operation_id, state="error")
    async with running.sessions.begin() as session:
        await session.execute(text("UPDATE clients SET status = 'failed' WHERE id = :id"), {"id": client_id})
    asked = asyncio.create_task(running.ask("DELETE", f"/clients/{client_id}?wait_s=20"))
    listed: list[Any] = []
    while not listed:
        found = await running.ask("GET", f"/operations?filter[client]={client_id}&filter[kind]=delete_client")
        listed = found.json()["data"]
    assert not asked.done()
    await running.write(UUID(listed[0]["id"]), state="ok")
    async with asyncio.timeout(10):
        answer = await asked
    assert (answer.status_code, answer.json()["data"]["attributes"]["completed"]) == (200, "ok")
