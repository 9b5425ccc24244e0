"""Switches and migrations on a practice server: what is served, what is kept, and what a killed worker leaves."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.fixtures.cloud import Cloud, Kill, chain_id, chains, kills_at
from tests.processes import Process

PAUSE_S = 0.02
OLD, NEW, BROKEN = "1.0.0-master", "1.1.0-dev", "9.9.9-broken"
SWITCH_STEPS = (
    "check_ownership",
    "ensure_services",
    "start_beside",
    "wait_beside_healthy",
    "point_proxy",
    "ensure_cloud_settings",
    "wait_answering",
    "retire_former",
    "ensure_one_service",
)
WITH_MIGRATION_STEPS = (
    "check_space", "show_page", "wait_quiet", "dump_behind_page", "migrate_data", "point_proxy", "lift_page",
    "retire_former", "remove_dump",
)  # fmt: skip
MIGRATE_STEPS = ("show_page", "dump_behind_page", "migrate_data", "lift_page", "remove_dump")
LOOKING = {"check_ownership", "wait_beside_healthy", "wait_answering", "check_space", "wait_quiet"}
"""Steps that may have no effect of their own."""


@pytest.fixture
async def client_id(cloud: Cloud, request: pytest.FixtureRequest) -> str:
    """A client of this test's own that is alive."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:40].strip("-")
    return await born(cloud, name)


@pytest.fixture(scope="module")
async def long_lived(cloud: Cloud) -> str:
    """A client that goes through many operations."""
    return await born(cloud, "long-lived")


async def born(cloud: Cloud, name: str) -> str:
    """The id of a new client that is alive."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create(name, cloud.server_id, image=OLD)
    await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    return client_id


async def run(cloud: Cloud, path: str, *, expect: str = "ok", **params: Any) -> Any:
    """A command, to its end."""
    answer = await cloud.system.call("POST", path, status=202, params=params or None)
    return {**await cloud.system.ended(answer["data"]["id"], expect=expect), "id": answer["data"]["id"]}


async def visit(cloud: Cloud, domain: str, path: str = "/", **options: Any) -> int:
    """What a visitor gets; 0 where nothing answers."""
    try:
        return (await cloud.visit(domain, path, **options)).status_code
    except httpx.HTTPError:
        return 0


@asynccontextmanager
async def visitors(cloud: Cloud, domain: str) -> AsyncIterator[list[int]]:
    """What visitors got during the block."""
    answers: list[int] = []

    async def come() -> None:
        while True:
            answers.append(await visit(cloud, domain))
            await asyncio.sleep(PAUSE_S)

    task = asyncio.create_task(come())
    try:
        yield answers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def row(cloud: Cloud, client_id: str) -> str:
    """What the client's row says: version, place, whether a migration is pending."""
    return cloud.sql(f"SELECT version || ' ' || slot || ' ' || migration_pending FROM clients WHERE id = {client_id}")


def containers(cloud: Cloud, name: str) -> list[str]:
    """The names of a client's containers."""
    found = [str(json.loads(line)["Names"]) for line in cloud.containers()]
    return [one for one in found if one.startswith(f"alfa-{name}-app-")]


async def assert_whole(cloud: Cloud, client_id: str, ended: Any) -> Any:
    """Whatever became of an operation: one container, which serves, as the row says, and no page."""
    await cloud.assert_sound(ended["id"], ended)
    client = await cloud.system.client(client_id)
    assert await visit(cloud, client["domain"]) == 200
    assert (client["available"], client["maintenance"]) == (True, False)
    slot = cloud.sql(f"SELECT slot FROM clients WHERE id = {client_id}")
    assert containers(cloud, client["name"]) == [f"alfa-{client['name']}-app-{slot}"]
    return client


@pytest.mark.usefixtures("worker")
async def test_there_and_back(cloud: Cloud, client_id: str) -> None:
    domain = (await cloud.system.client(client_id))["domain"]
    async with visitors(cloud, domain) as answers:
        ended = await run(cloud, f"/clients/{client_id}/switch/{NEW}")
        assert row(cloud, client_id) == f"{NEW} b true"
        ups = cloud.count("up")
        again = await run(cloud, f"/clients/{client_id}/switch/alfa:{NEW}")
        assert cloud.count("up") == ups
        assert {step["state"] for step in again["steps"]} == {"done", "skipped"}
        await run(cloud, f"/clients/{client_id}/switch/master")
    assert row(cloud, client_id) == f"{OLD} a true"
    assert len(answers) > 20
    assert set(answers) == {200}
    client = await assert_whole(cloud, client_id, ended)
    assert client["image"] == "master"


@pytest.mark.usefixtures("worker")
async def test_unhealthy(cloud: Cloud, client_id: str) -> None:
    domain = (await cloud.system.client(client_id))["domain"]
    cloud.sql(f"UPDATE clients SET available = false, available_reason = 'HTTP 503' WHERE id = {client_id}")
    async with visitors(cloud, domain) as answers:
        ended = await run(cloud, f"/clients/{client_id}/switch/{BROKEN}", expect="error")
    assert set(answers) == {200}
    assert ended["error"]["code"] == "not_healthy"
    assert ended["warnings"] == []
    await assert_whole(cloud, client_id, ended)
    assert row(cloud, client_id) == f"{OLD} a false"
    lines = [line["text"] for line in await cloud.system.log(f"/operations/{ended['id']}/log")]
    assert any("Server running on" in line for line in lines)


@pytest.mark.parametrize("wish", ["evil.com", "other:1.0.0-master", "no-such", "alfa:no-such"])
async def test_not_of_the_fleet(cloud: Cloud, wish: str) -> None:
    client = (await cloud.system.call("GET", "/clients?page[size]=1"))["data"][0]
    answer = await cloud.system.call("POST", f"/clients/{client['id']}/switch/{wish}", status=422)
    assert answer["errors"][0]["code"] == "image_not_in_fleet"
    if ":" not in wish:
        assert OLD in answer["errors"][0]["detail"]


@pytest.mark.parametrize("wish", ["evil.com%2Fx", "alpine@sha256:00", "%2E%2E%2Fx", "-v", "a b", "x;touch%20C", ":x"])
async def test_no_image_at_all(cloud: Cloud, wish: str) -> None:
    client = (await cloud.system.call("GET", "/clients?page[size]=1"))["data"][0]
    await cloud.system.call("POST", f"/clients/{client['id']}/switch/{wish}", status=404)


async def test_a_plan(cloud: Cloud, client_id: str) -> None:
    plan = await cloud.system.call("GET", f"/clients/{client_id}/switch/dev?dry_run=true&run_migrate=true", status=200)
    assert "Show the maintenance page" in plan["data"]["attributes"]["steps"]
    await cloud.system.call("GET", "/clients/999/switch/dev", status=404)


@pytest.mark.usefixtures("worker")
async def test_an_update_without_a_gap(cloud: Cloud, client_id: str) -> None:
    client = await cloud.system.client(client_id)
    async with visitors(cloud, client["domain"]) as answers:
        made = await cloud.system.call("PATCH", f"/clients/{client_id}", json={"title": "Новое имя"}, status=200)
        operation_id = made["data"]["relationships"]["operation"]["data"]["id"]
        ended = await cloud.system.ended(operation_id, expect="ok")
    assert set(answers) == {200}
    await assert_whole(cloud, client_id, {**ended, "id": operation_id})
    assert row(cloud, client_id) == f"{OLD} b false"


@pytest.mark.usefixtures("worker")
async def test_an_update_that_fails_leaves_the_former_domain(cloud: Cloud, client_id: str) -> None:
    """And the next one brings what was wanted."""
    former = (await cloud.system.client(client_id))["domain"]
    cloud.practice.fault("--host=.*psql|psql.*--dbname=alfa_", "fail", phase="before")
    made = await cloud.system.call("PATCH", f"/clients/{client_id}", json={"domain": "other.test"}, status=200)
    operation_id = made["data"]["relationships"]["operation"]["data"]["id"]
    ended = await cloud.system.ended(operation_id, expect="error")
    assert ended["error"]["step"] == "Settings in the client's database"
    assert (await visit(cloud, former), await visit(cloud, "other.test")) == (200, 404)
    cloud.practice.clear_faults()
    await run(cloud, f"/operations/{operation_id}/retry")
    assert (await visit(cloud, former), await visit(cloud, "other.test")) == (404, 200)


@pytest.mark.usefixtures("worker")
async def test_migrations(cloud: Cloud, client_id: str) -> None:
    client = await cloud.system.client(client_id)
    await run(cloud, f"/clients/{client_id}/switch/{NEW}", run_migrate=True)
    assert row(cloud, client_id) == f"{NEW} b false"
    await run(cloud, f"/clients/{client_id}/switch/{OLD}")
    await run(cloud, f"/clients/{client_id}/switch/{NEW}")
    ended = await run(cloud, f"/clients/{client_id}/migrate")
    assert row(cloud, client_id) == f"{NEW} b false"
    await assert_whole(cloud, client_id, ended)
    assert await visit(cloud, client["domain"], "/samples", json={"name": "x"}) == 201
    assert columns(cloud, client_id) == ["created_at", "demo", "id", "name", "note"]


def columns(cloud: Cloud, client_id: str) -> list[str]:
    """The columns of the client's samples."""
    sql = "SELECT column_name FROM information_schema.columns WHERE table_name = 'samples' ORDER BY 1"
    psql = ("psql", "--no-psqlrc", "-At", "-d", f"alfa_{client_id}", "-c", sql)
    return cloud.on_server("sudo", "-n", "-u", "postgres", "--", *psql).split()


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("path", ["switch/1.1.0-dev?run_migrate=true", "migrate"])
async def test_a_failed_migration(cloud: Cloud, client_id: str, path: str) -> None:
    client = await cloud.system.client(client_id)
    assert await visit(cloud, client["domain"], "/samples", json={"name": "kept"}) == 201
    before = row(cloud, client_id)
    cloud.practice.fault("artisan migrate", "fail", phase="after", stderr="half way")
    ended = await run(cloud, f"/clients/{client_id}/{path}", expect="error")
    assert ended["error"]["step"] == "Migrate the database"
    assert ended["warnings"] == []
    await assert_whole(cloud, client_id, ended)
    assert row(cloud, client_id) == before
    assert columns(cloud, client_id) == ["created_at", "demo", "id", "name"]


def deaths(steps: Sequence[str], count: int = 1) -> pytest.MarkDecorator:
    """Each of these tests is for an operation in which workers die."""
    return pytest.mark.parametrize("chain", chains(kills_at(steps, LOOKING), count), ids=chain_id)


async def killed(cloud: Cloud, client_id: str, kind: str, chain: tuple[Kill, ...], path: str) -> tuple[Any, Process]:
    """The end of an operation whose first workers were killed, and the worker that ended it."""
    answer = await cloud.system.call("POST", f"/clients/{client_id}/{path}", status=202)
    await cloud.kill_workers(kind, chain)
    successor = cloud.start_worker()
    ended = await cloud.system.ended(answer["data"]["id"], within_s=90)
    assert ended["attempt"] == len(chain) + 1
    return {**ended, "id": answer["data"]["id"]}, successor


def next_of(cloud: Cloud, client_id: str) -> tuple[str, str]:
    """The version that a client does not run, and the place it will have."""
    version, slot, _ = row(cloud, client_id).split()
    return (OLD if version == NEW else NEW), ("a" if slot == "b" else "b")


# Who comes after the former container's end has the file for one service already: the last step has no effect then.
@deaths(SWITCH_STEPS, count=2)
async def test_killed_in_a_switch(cloud: Cloud, long_lived: str, chain: tuple[Kill, ...]) -> None:
    domain = (await cloud.system.client(long_lived))["domain"]
    version, slot = next_of(cloud, long_lived)
    async with visitors(cloud, domain) as answers:
        ended, successor = await killed(cloud, long_lived, "switch_client", chain, f"switch/{version}")
    cloud.system.end(successor)
    assert ended["completed"] == "ok"
    assert set(answers) == {200}
    await assert_whole(cloud, long_lived, ended)
    assert row(cloud, long_lived) == f"{version} {slot} true"


@deaths(WITH_MIGRATION_STEPS)
async def test_killed_in_a_switch_with_a_migration(cloud: Cloud, long_lived: str, chain: tuple[Kill, ...]) -> None:
    version, slot = next_of(cloud, long_lived)
    before = cloud.count("artisan", "migrate")
    path = f"switch/{version}?run_migrate=true"
    ended, successor = await killed(cloud, long_lived, "switch_client", chain, path)
    cloud.system.end(successor)
    assert ended["completed"] == "ok"
    await assert_whole(cloud, long_lived, ended)
    assert row(cloud, long_lived) == f"{version} {slot} false"
    assert cloud.count("artisan", "migrate") == before + 1


@deaths(MIGRATE_STEPS)
async def test_killed_in_a_migration(cloud: Cloud, long_lived: str, chain: tuple[Kill, ...]) -> None:
    version, slot, _ = row(cloud, long_lived).split()
    ended, successor = await killed(cloud, long_lived, "migrate_client", chain, "migrate")
    cloud.system.end(successor)
    assert ended["completed"] == "ok"
    await assert_whole(cloud, long_lived, ended)
    assert row(cloud, long_lived) == f"{version} {slot} false"


async def test_killed_while_it_takes_back(cloud: Cloud, client_id: str) -> None:
    cloud.practice.fault("artisan migrate", "fail", phase="after", stderr="half way")
    cloud.practice.fault("container rm", "slow", seconds=3)
    first = cloud.start_worker()
    answer = await cloud.system.call("POST", f"/clients/{client_id}/switch/{NEW}?run_migrate=true", status=202)
    operation_id = answer["data"]["id"]
    query = f"SELECT count(*) FROM operation_lines WHERE operation_id = '{operation_id}' AND text LIKE 'Restored %'"
    while cloud.sql(query) == "0":
        await asyncio.sleep(0.02)
    first.kill()
    first.wait()
    cloud.practice.clear_faults()
    second = cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="error", within_s=90)
    cloud.system.end(second)
    assert ended["warnings"] == []
    await assert_whole(cloud, client_id, {**ended, "id": operation_id})
    assert row(cloud, client_id) == f"{OLD} a false"


@pytest.fixture(autouse=True)
def no_worker_left(cloud: Cloud) -> Any:
    """A worker of one test must not take the next one's work."""
    yield
    for process in cloud.workers:
        cloud.system.end(process, signal.SIGKILL)
