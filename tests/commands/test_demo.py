"""Demo data: it comes once, it goes, and there is a way back where its seeders fail."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.cloud import Cloud

SAMPLES = 20
"""What the practice application's seeder brings."""


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create("demo", cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    return client_id


async def run(cloud: Cloud, path: str, *, expect: str = "ok") -> Any:
    """A command, to its end."""
    answer = await cloud.system.call("POST", path, status=202)
    return await cloud.system.ended(answer["data"]["id"], expect=expect)


async def ask(cloud: Cloud, method: str, path: str) -> httpx.Response:
    """What the application answers."""
    address = f"http://{cloud.practice.host}:{cloud.practice.layout.http_port}{path}"
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.request(method, address, headers={"Host": "demo.practice.test"})


async def samples(cloud: Cloud) -> int:
    """How many samples the laboratory has."""
    return int((await ask(cloud, "GET", "/samples/count")).json()["count"])


def dumps(cloud: Cloud) -> set[str]:
    """The verified dumps that are kept of the client."""
    uid = cloud.sql("SELECT uid FROM clients WHERE name = 'demo'")
    folder = Path(cloud.practice.layout.root) / "archive" / uid
    return {path.stem for path in folder.glob("*.json")} if folder.exists() else set()


async def is_demo(cloud: Cloud, client_id: str) -> bool:
    """What the client's `demo` says."""
    return bool((await cloud.system.client(client_id))["demo"])


@pytest.mark.usefixtures("worker")
async def test_the_demo_data_comes_once_and_goes(cloud: Cloud, client_id: str) -> None:
    await ask(cloud, "POST", "/samples")
    ended = await run(cloud, f"/clients/{client_id}/demo_enable")
    assert (await samples(cloud), await is_demo(cloud, client_id)) == (SAMPLES + 1, True)
    assert dumps(cloud) == {ended["result"]["dump"]}
    again = await run(cloud, f"/clients/{client_id}/demo_enable")
    assert [step["title"] for step in again["steps"]] == ["The demo data is there already"]
    assert await samples(cloud) == SAMPLES + 1
    await ask(cloud, "POST", "/samples")
    for _ in range(2):
        await run(cloud, f"/clients/{client_id}/demo_disable")
        assert (await samples(cloud), await is_demo(cloud, client_id)) == (2, False)
    assert dumps(cloud) == set()


@pytest.mark.usefixtures("worker")
async def test_where_the_inverse_seeder_fails_only_a_confirmed_restore_brings_the_past_back(
    cloud: Cloud, client_id: str
) -> None:
    before = await samples(cloud)
    await run(cloud, f"/clients/{client_id}/demo_enable")
    cloud.practice.fault("docker.*DemoInverseSeeder", action="fail", phase="before")
    ended = await run(cloud, f"/clients/{client_id}/demo_disable", expect="error")
    assert ended["error"]["step"] == "Take the demo data away"
    assert "demo_disable?restore_backup=true&confirm_loss=true" in ended["error"]["message"]
    assert (await samples(cloud), await is_demo(cloud, client_id)) == (before + SAMPLES, True)
    path = f"/clients/{client_id}/demo_disable?restore_backup=true"
    refused = await cloud.system.call("POST", path, status=422)
    assert refused["errors"][0]["source"] == {"parameter": "confirm_loss"}
    ended = await run(cloud, f"{path}&confirm_loss=true")
    assert (await samples(cloud), await is_demo(cloud, client_id)) == (before, False)
    assert dumps(cloud) == {ended["result"]["dump"]}
    assert (await ask(cloud, "GET", "/")).status_code == 200
    refused = await cloud.system.call("POST", f"{path}&confirm_loss=true", status=409)
    assert "no dump" in refused["errors"][0]["detail"]


@pytest.mark.usefixtures("worker")
async def test_a_restore_that_fails_leaves_the_present_and_no_page(cloud: Cloud, client_id: str) -> None:
    kept, before = dumps(cloud), await samples(cloud)
    ended = await run(cloud, f"/clients/{client_id}/demo_enable")
    await ask(cloud, "POST", "/samples")
    cloud.practice.fault("docker.*artisan.*migrate", action="fail", phase="before")
    path = f"/clients/{client_id}/demo_disable?restore_backup=true&confirm_loss=true"
    failed = await run(cloud, path, expect="error")
    assert failed["error"]["step"] == "Migrate the database"
    assert (await samples(cloud), await is_demo(cloud, client_id)) == (before + SAMPLES + 1, True)
    assert (await ask(cloud, "GET", "/")).status_code == 200
    assert dumps(cloud) == kept | {ended["result"]["dump"]}
    cloud.practice.clear_faults()
    await run(cloud, path)
    assert await samples(cloud) == before


@pytest.mark.usefixtures("worker")
async def test_a_seeder_that_fails_is_not_taken_back_and_its_dump_is_the_way_back(cloud: Cloud, client_id: str) -> None:
    before = await samples(cloud)
    cloud.practice.fault("docker.*DemoSeeder", action="fail", phase="after")
    ended = await run(cloud, f"/clients/{client_id}/demo_enable", expect="error")
    assert ended["error"]["step"] == "Add the demo data"
    assert ended["result"]["dump"] in ended["error"]["message"]
    cloud.practice.clear_faults()
    await run(cloud, f"/clients/{client_id}/demo_enable")
    await run(cloud, f"/clients/{client_id}/demo_disable?restore_backup=true&confirm_loss=true")
    assert await samples(cloud) == before


async def test_a_killed_worker_seeds_no_second_time(cloud: Cloud, client_id: str) -> None:
    before = cloud.count("--class=DemoSeeder")
    worker = cloud.start_worker("enable_demo.seed:effect:kill")
    answer = await cloud.system.call("POST", f"/clients/{client_id}/demo_enable", status=202)
    await asyncio.to_thread(worker.wait, 60)
    heir = cloud.start_worker()
    await cloud.system.ended(answer["data"]["id"], expect="ok")
    assert cloud.count("--class=DemoSeeder") == before + 1
    await run(cloud, f"/clients/{client_id}/demo_disable")
    cloud.system.end(heir)
