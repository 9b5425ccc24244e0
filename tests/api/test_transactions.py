"""One request is one transaction: committed before the answer leaves, the bell after it, repeats answered once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, text

from alfa_cloud.db import SessionFactory
from alfa_cloud.models import IdempotencyKey, Worker
from alfa_cloud.services import idempotency
from tests.api.conftest import client_of, scope_of
from tests.api.toy import PASSWORD, Toy


async def names(sessions: SessionFactory) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(select(Worker.name).order_by(Worker.name)))


async def keys(sessions: SessionFactory) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(IdempotencyKey)) or 0


async def test_the_commit_comes_before_the_answer_and_the_bell_after_it(
    stored_app: FastAPI, sessions: SessionFactory, toy: Toy
) -> None:
    seen: list[tuple[str, list[str]]] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def watching(message: Any) -> None:
            seen.append((message["type"], await names(sessions)))
            await send(message)

        await stored_app(scope, receive, watching)

    class Bell:
        async def wake(self, operation_id: object) -> None:
            seen.append(("bell", await names(sessions)))

    stored_app.state.broker = Bell()
    async with client_of(watched) as client:  # type: ignore[arg-type]  # any ASGI application will do
        assert (await client.post("/rows/one")).status_code == 201
    assert {kind for kind, _ in seen} == {"http.response.start", "http.response.body", "bell"}
    assert all(rows == ["one"] for _, rows in seen)


async def test_an_error_takes_everything_back_and_rings_nothing(
    stored_app: FastAPI, sessions: SessionFactory, toy: Toy
) -> None:
    async with client_of(stored_app) as client:
        answer = await client.post("/rows/broken", headers={"Idempotency-Key": "k"})
        assert answer.status_code == 409
        await client.post("/rows/once")
        answer = await client.post("/rows/once")
        assert answer.status_code == 500
    assert await names(sessions) == ["once"]
    assert await keys(sessions) == 0
    assert len(toy.rung) == 1


async def test_a_broker_that_is_away_fails_no_request(stored_app: FastAPI, sessions: SessionFactory, toy: Toy) -> None:
    toy.broken_bell = True
    async with client_of(stored_app) as client:
        assert (await client.post("/rows/one")).status_code == 201
    assert await names(sessions) == ["one"]


@pytest.mark.parametrize("path", ["/rows/one", "/late/one"])
async def test_a_repeat_is_answered_as_before_and_does_nothing(
    stored_app: FastAPI, sessions: SessionFactory, toy: Toy, path: str
) -> None:
    headers = {"Idempotency-Key": "0190-key"}
    async with client_of(stored_app) as client:
        first = await client.post(path, headers=headers)
        toy.rung.clear()
        again = [await client.post(path, headers=headers), await client.post(path + "/", headers=headers)]
        other = await client.post(path, headers={"Idempotency-Key": "another"}) if "late" in path else None
    for answer in again:
        assert answer.status_code == first.status_code == 201
        assert answer.content == first.content
        for name in ("location", "content-type"):
            assert answer.headers.get(name) == first.headers.get(name)
        assert answer.headers["x-request-id"] != first.headers["x-request-id"]
    assert toy.commands[:1] == ["one"]
    assert toy.rung == []
    assert other is None or other.status_code == 500  # the row is there already


@pytest.mark.parametrize(
    ("path", "content"),
    [("/rows/one", b'{"data":{"type":"commands"}}'), ("/rows/two", b"{}"), ("/rows/one?wait=0", b"{}")],
)
async def test_a_key_for_another_request_is_422(stored_app: FastAPI, toy: Toy, path: str, content: bytes) -> None:
    media = "application/vnd.api+json" if b"data" in content else "application/json"
    async with client_of(stored_app) as client:
        base = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        assert (await client.post("/rows/one", content=b"{}", headers=base)).status_code == 201
        answer = await client.post(path, content=content, headers={**base, "Content-Type": media})
    assert answer.status_code == 422
    error = answer.json()["errors"][0]
    assert (error["code"], error["source"]) == ("idempotency_key_reused", {"header": "Idempotency-Key"})
    assert toy.commands == ["one"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ключ".encode()])
async def test_a_key_that_is_not_well_formed_is_400(stored_app: FastAPI, toy: Toy, key: Any) -> None:
    async with client_of(stored_app) as client:
        answer = await client.post("/rows/one", headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["source"] == {"header": "Idempotency-Key"}
    assert toy.commands == []


@pytest.mark.parametrize("path", ["/rows/one?wait=1", "/late/one"])
async def test_twenty_equal_requests_at_a_time_do_it_once(
    stored_app: FastAPI, sessions: SessionFactory, toy: Toy, path: str
) -> None:
    async def let_go() -> None:
        while not toy.commands:
            await asyncio.sleep(0.01)
        toy.ended.set()

    headers = {"Idempotency-Key": "k"}
    async with client_of(stored_app) as client:
        posts = [client.post(path, headers=headers) for _ in range(20)]
        answers = (await asyncio.gather(*posts, let_go()))[:-1]
    assert {answer.status_code for answer in answers if answer is not None} == {201}
    assert len({answer.content for answer in answers if answer is not None}) == 1
    assert await names(sessions) == ["one"]
    assert len(toy.rung) <= 1


async def test_a_failed_request_is_not_kept(stored_app: FastAPI, sessions: SessionFactory, toy: Toy) -> None:
    headers = {"Idempotency-Key": "k"}
    async with client_of(stored_app) as client:
        assert (await client.post("/rows/broken", headers=headers)).status_code == 409
        assert (await client.post("/rows/broken", headers=headers)).status_code == 409
        assert (await client.post("/rows/one", headers=headers)).status_code == 201
    assert toy.commands == ["broken", "broken", "one"]


async def test_after_a_day_a_key_is_new(stored_app: FastAPI, sessions: SessionFactory, toy: Toy) -> None:
    headers = {"Idempotency-Key": "k"}
    async with client_of(stored_app) as client:
        await client.post("/rows/one", headers=headers)
        async with sessions.begin() as session:
            await session.execute(text("UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'"))
        assert (await client.post("/rows/two", headers=headers)).status_code == 201
    assert await keys(sessions) == 1
    async with sessions.begin() as session:
        await session.execute(text("UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'"))
        await idempotency.purge(session)
    assert await keys(sessions) == 0


async def test_a_get_ignores_the_key(stored_app: FastAPI, toy: Toy) -> None:
    async with client_of(stored_app) as client:
        for _ in range(2):
            assert (await client.get("/servers/1/deploy", headers={"Idempotency-Key": "k"})).status_code == 202
    assert len(toy.commands) == 2


async def test_waiting_comes_after_the_bell_and_answers_the_end(client: httpx.AsyncClient, toy: Toy) -> None:
    async def end() -> None:
        while not toy.rung:
            await asyncio.sleep(0.01)
        toy.ended.set()

    answer, _ = await asyncio.gather(client.post("/servers/1/deploy?wait_s=30&fields[works]=completed"), end())
    assert answer.status_code == 200
    assert answer.json()["data"]["attributes"] == {"completed": "ok"}
    assert answer.headers["location"].startswith("/works/")
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_a_wait_that_runs_out_answers_as_without_it(client: httpx.AsyncClient, toy: Toy) -> None:
    answer = await client.get("/servers/1/deploy?wait_s=1")
    assert answer.status_code == 202
    assert answer.json()["data"]["attributes"] == {"completed": None}
    assert len(toy.rung) == 1


async def test_a_wait_ends_when_the_client_goes(app: FastAPI, toy: Toy) -> None:
    gone = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    request = asyncio.create_task(app(scope_of("/servers/1/deploy", b"wait_s=300"), receive, send))
    while not toy.rung:
        await asyncio.sleep(0.01)
    gone.set()
    await asyncio.wait_for(request, 5)
    assert sent[0]["status"] == 202


async def test_a_kept_answer_holds_no_secret(stored_app: FastAPI, sessions: SessionFactory) -> None:
    async with client_of(stored_app) as client:
        await client.post("/rows/one", headers={"Idempotency-Key": "k", "X-Actor": "anna"})
    async with sessions() as session:
        row = (await session.scalars(select(IdempotencyKey))).one()
    assert set(row.headers) <= {"content-type", "location"}
    assert PASSWORD.encode() not in row.body
