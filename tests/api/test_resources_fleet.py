"""Commands on all clients of a server, and on all servers: what they answer, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update

from alfa_cloud.models import Client, Operation, OperationLine, OperationStep, Server
from alfa_cloud.services import fleet, operations
from alfa_cloud.specs import ClientStatus, OperationState
from tests.api.resources import Api
from tests.factories import make_client

pytest_plugins = ["tests.fixtures.api"]

COMMANDS = ("switch_all?image_name=1.1.0-dev", "migrate_all", "deploy", "maintain_enable", "maintain_disable")


@pytest.fixture(autouse=True)
async def names(api: Api, server_id: int) -> AsyncIterator[list[str]]:
    """Three clients that are alive, and one that is not."""
    async with api.sessions.begin() as session:
        server = await session.get_one(Server, server_id)
        made = [await make_client(session, api.vault, server, title=f"Лаборатория {n}") for n in range(3)]
        made[1].demo = True
        await make_client(session, api.vault, server, status=ClientStatus.DELETING)
    yield [client.name for client in made]
    async with api.sessions.begin() as session:
        for model in (OperationLine, OperationStep):
            await session.execute(delete(model))
        await session.execute(update(Operation).values(parent_id=None, retry_of=None))
        await session.execute(delete(Operation).where(Operation.state != "ok"))
        await session.execute(delete(Client))


async def count(api: Api) -> int:
    async with api.sessions() as session:
        return await session.scalar(select(func.count()).select_from(Operation)) or 0


async def ask(api: Api, path: str, method: str = "POST", **options: Any) -> Any:
    return (await api.ask(method, path, 202, **options)).json()["data"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("spelling", ["server", "servers"])
async def test_a_parent_runs_at_once(
    api: Api, server_id: int, names: list[str], command: str, method: str, spelling: str
) -> None:
    data = await ask(api, f"/{spelling}/{server_id}/{command}", method, headers={"X-Actor": "anna"})
    found = data["attributes"]
    assert (found["state"], found["completed"], found["cancellable"], found["actor"]) == ("running", None, True, "anna")
    before = ["practice"] if command == "deploy" else []
    assert [row["name"] for row in found["result"]["rows"]] == [step["title"] for step in found["steps"]]
    assert [step["title"] for step in found["steps"]] == before + names
    assert data["relationships"]["server"]["data"]["id"] == str(server_id)
    children = data["relationships"]["children"]
    assert children["meta"] == {"queued": 1 if command == "deploy" else 3}
    listed = await api.get(children["links"]["related"])
    assert {one["relationships"]["parent"]["data"]["id"] for one in listed["data"]} == {data["id"]}
    again = await ask(api, f"/{spelling}/{server_id}/{command}", method)
    assert again["id"] == data["id"]


async def test_switching_names_its_image(api: Api, server_id: int) -> None:
    path = f"/server/{server_id}/switch_all"
    (error,) = (await api.ask("GET", path, 422)).json()["errors"]
    assert error["source"] == {"parameter": "image_name"}
    assert "1.1.0-dev, 1.0.0-master" in error["detail"]
    assert await api.refused("GET", f"{path}?image_name=evil.test/x", 422) == [("image_not_in_fleet", "image_name")]
    for wish, image, reference in (
        ("dev", "dev", "alfa:1.1.0-dev"),
        ("alfa:1.0.0-master", "alfa:1.0.0-master", "alfa:1.0.0-master"),
    ):
        data = await ask(api, f"{path}?image_name={wish}&run_migrate=true")
        async with api.sessions() as session:
            children = list(await session.scalars(select(Operation).where(Operation.parent_id == data["id"])))
        assert {child.kind for child in children} == {"switch_client"}
        params = {"image": image, "image_ref": reference, "run_migrate": True}
        assert all(params.items() <= child.params.items() for child in children)


async def test_filters_choose(api: Api, server_id: int, names: list[str]) -> None:
    path = f"/server/{server_id}/migrate_all"
    for query, chosen in (
        ("filter[demo]=true", names[1:2]),
        ("filter[demo]=false", [names[0], names[2]]),
        (f"filter[q]={names[2]}", names[2:]),
        ("filter[q]=no-such", []),
        ("filter[image]=1.0.0-master", names),
    ):
        data = await ask(api, f"{path}?{query}")
        assert [row["name"] for row in data["attributes"]["result"]["rows"]] == chosen
        assert data["attributes"]["completed"] == (None if chosen else "ok")
    assert await api.refused("POST", f"{path}?filter[demo]=maybe", 400) == [("invalid_filter", "filter[demo]")]
    for wrong in ("filter[server]=1", "page[size]=1", "sort=name", "max_parallel=0", "canary_count=-1"):
        assert (await api.refused("POST", f"{path}?{wrong}", 400))[0][1] == wrong.partition("=")[0]


async def test_nothing_is_found_where_nothing_is(api: Api) -> None:
    for command in COMMANDS:
        assert await api.refused("POST", f"/server/999999/{command}", 404) == [("server_not_found", None)]
    assert await api.refused("POST", "/containers/prune?server_id=999999", 404) == [("server_not_found", None)]
    assert (await api.refused("POST", "/containers/prune?server_id=x", 400))[0][1] == "server_id"


async def test_pruning_one_server_or_all(api: Api, server_id: int) -> None:
    for path in ("/containers/prune", f"/containers/prune?server_id={server_id}"):
        data = await ask(api, path, "GET")
        assert data["attributes"]["kind"] == "prune"
        (row,) = data["attributes"]["result"]["rows"]
        assert (row["name"], row["client_id"], row["server_id"]) == ("practice", None, str(server_id))
        listed = await api.get(f"/operations?filter[parent]={data['id']}")
        assert [one["attributes"]["kind"] for one in listed["data"]] == ["prune_server"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_plan_keeps_nothing(api: Api, server_id: int, names: list[str], command: str) -> None:
    before = await count(api)
    sign = "&" if "?" in command else "?"
    plan = (await api.get(f"/server/{server_id}/{command}{sign}dry_run=true"))["data"]
    assert plan["type"] == "plans"
    assert plan["attributes"]["steps"] == (["practice"] if command == "deploy" else []) + names
    assert len(plan["attributes"]["clients"]) == 3
    assert plan["attributes"]["extra"]["blocks"] == {}
    assert await count(api) == before


async def test_equal_commands_at_once_are_one(api: Api, server_id: int) -> None:
    path = f"/server/{server_id}/migrate_all?max_parallel=2"
    ids = {data["id"] for data in await asyncio.gather(*(ask(api, path) for _ in range(10)))}
    assert len(ids) == 1
    listed = await api.get(f"/operations?filter[parent]={ids.pop()}")
    assert listed["meta"]["page"]["total"] == 2


async def test_a_cancel_and_a_retry(api: Api, server_id: int, names: list[str]) -> None:
    data = await ask(api, f"/server/{server_id}/migrate_all?max_parallel=2")
    first, second = (await api.get(f"/operations?filter[parent]={data['id']}&sort=created_at"))["data"]
    async with api.sessions.begin() as session:
        claim = await operations.claim(session, first["id"], "worker", 30)
        assert claim is not None
    cancelled = await ask(api, f"/operations/{data['id']}/cancel")
    assert cancelled["attributes"]["state"] == "running"
    assert (await api.get(f"/operations/{second['id']}"))["data"]["attributes"]["error"]["code"] == "cancelled"
    assert await api.refused("POST", f"/operations/{data['id']}/retry", 409) == [("not_retryable", None)]
    async with api.sessions.begin() as session:
        await operations.finish(session, claim, OperationState.OK)
    waited = asyncio.create_task(api.ask("GET", f"/operations/{data['id']}/log?wait_s=30&after_seq=100", 200))
    await ask(api, f"/operations/{second['id']}/retry")
    async with api.sessions.begin() as session:
        await fleet.advance(session, UUID(data["id"]))
    assert (await waited).json()["data"]["attributes"]["state"] == "cancelled"
    again = await ask(api, f"/operations/{data['id']}/retry")
    assert [row["name"] for row in again["attributes"]["result"]["rows"]] == names[1:]
    assert again["relationships"]["retry_of"]["data"]["id"] == data["id"]
    assert await api.refused("POST", f"/operations/{data['id']}/cancel", 409) == [("not_cancellable", None)]


@pytest.mark.parametrize(
    "moment",
    [
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+23:59",
        "2020-01-01T00:00:00Z",
        "0",
        "2100-01-01T00:00:00Z",
        "2030-01-01T00:00:00",
    ],
)
async def test_an_end_that_cannot_be_is_refused(api: Api, server_id: int, names: list[str], moment: str) -> None:
    """At the edge of the calendar another zone has no such day."""
    client = (await api.get(f"/clients?filter[q]={names[0]}"))["data"][0]["id"]
    for path in (f"/clients/{client}/maintain_enable", f"/servers/{server_id}/maintain_enable"):
        refused = await api.refused("POST", path, 400, params={"ends_at": moment})
        assert refused == [("invalid_parameter", "ends_at")]
    ahead = (datetime.now(UTC) + timedelta(days=3600)).isoformat()
    await api.post(f"/clients/{client}/maintain_enable?dry_run=true&ends_at={quote(ahead)}", None, 200)
