"""Short commands of a client: restart, pages, the owner's password."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.fixtures.cloud import Cloud
from tests.processes import Process

PASSWORD = "Новый пароль $HOME 'и' \"кавычки\" \\ 2\tTAB\x7fDEL\x85NEL"


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create("lab", cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    return client_id


async def run(cloud: Cloud, path: str, *, method: str = "POST", expect: str = "ok", **options: Any) -> Any:
    """A command, to its end."""
    answer = await cloud.system.call(method, path, status=202, **options)
    return await cloud.system.ended(answer["data"]["id"], expect=expect)


async def visit(cloud: Cloud, client_id: str, path: str = "/") -> httpx.Response:
    """What a visitor sees."""
    client = await cloud.system.client(client_id)
    return await cloud.visit(client["domain"], path)


@pytest.mark.usefixtures("worker")
async def test_a_restart(cloud: Cloud, client_id: str) -> None:
    for _ in range(2):
        before = cloud.count("restart")
        await run(cloud, f"/clients/{client_id}/reboot", method="GET")
        assert cloud.count("restart") == before + 1
    assert (await visit(cloud, client_id)).status_code == 200


@pytest.mark.usefixtures("worker")
async def test_the_maintenance_page_stands_for_a_client(cloud: Cloud, client_id: str) -> None:
    text, until = "Обновляем <базу>", "2030-01-02T03:04:05Z"
    for _ in range(2):
        await run(cloud, f"/clients/{client_id}/maintain_enable", params={"page_text": text, "ends_at": until})
    page = await visit(cloud, client_id)
    assert (page.status_code, page.headers["retry-after"]) == (503, "Wed, 02 Jan 2030 03:04:05 GMT")
    assert "Техническое обслуживание" in page.text
    assert "Обновляем &lt;базу&gt;" in page.text
    assert page.text.index("Техническое") < page.text.index("Maintenance")
    client = await cloud.system.client(client_id)
    assert (client["maintenance"], client["available"]) == (True, True)
    assert (await visit(cloud, client_id, "/.alfa/health")).status_code == 200
    for _ in range(2):
        await run(cloud, f"/clients/{client_id}/maintain_disable")
    assert (await visit(cloud, client_id)).status_code == 200
    assert (await cloud.system.client(client_id))["maintenance"] is False


@pytest.mark.usefixtures("worker")
async def test_a_page_that_cannot_be_shown_leaves_everything_as_it_was(cloud: Cloud, client_id: str) -> None:
    cloud.practice.fault("alfa-vhost .*/vhost.loaded", action="fail", phase="before")
    ended = await run(cloud, f"/clients/{client_id}/maintain_enable", expect="error")
    assert ended["error"]["step"].startswith("Virtual host ")
    cloud.practice.clear_faults()
    assert (await visit(cloud, client_id)).status_code == 200
    assert (await cloud.system.client(client_id))["maintenance"] is False
    await run(cloud, f"/clients/{client_id}/maintain_enable")
    await run(cloud, f"/clients/{client_id}/maintain_disable")


async def test_enable_disable_enable_are_three(cloud: Cloud, client_id: str, worker: Process) -> None:
    cloud.system.end(worker)
    paths = [f"/clients/{client_id}/maintain_{word}" for word in ("enable", "enable", "disable", "enable")]
    ids = [(await cloud.system.call("POST", path, status=202))["data"]["id"] for path in paths]
    assert len(set(ids)) == 3
    cloud.start_worker()
    for operation_id in ids:
        await cloud.system.ended(operation_id, expect="ok")
    assert (await cloud.system.client(client_id))["maintenance"] is True
    await run(cloud, f"/clients/{client_id}/maintain_disable")


@pytest.mark.usefixtures("worker")
async def test_the_owner_logs_in_with_exactly_the_new_password(cloud: Cloud, client_id: str) -> None:
    ended = await run(cloud, f"/clients/{client_id}/owner_password", json={"password": PASSWORD})
    assert ended["retryable"] is False
    assert cloud.sql(f"SELECT count(*) FROM operations WHERE secrets IS NOT NULL AND client_id = {client_id}") == "0"
    client = await cloud.system.client(client_id)
    for password, status in ((PASSWORD, 200), (PASSWORD + "x", 401)):
        body = {"login": client["owner_login"], "password": password}
        assert (await cloud.visit(client["domain"], "/login", json=body)).status_code == status


@pytest.mark.parametrize("password", ["", "short", "line\nend-of-it", "carriage\rreturn", None])
async def test_a_password_that_cannot_be(cloud: Cloud, client_id: str, password: str | None) -> None:
    answer = await cloud.system.call(
        "POST", f"/clients/{client_id}/owner_password", status=422, json={"password": password}
    )
    assert answer["errors"][0]["source"]["pointer"] == "/password"


async def test_a_plan_looks_at_the_server(cloud: Cloud, client_id: str) -> None:
    plan = (await cloud.system.call("GET", f"/clients/{client_id}/migrate?dry_run=true", status=200))["data"]
    assert plan["attributes"]["blocks"] == []
    space = plan["attributes"]["extra"]["space"]
    assert 0 < space["needed_bytes"] < space["free_bytes"]
    cloud.practice.fault("docker", action="fail", phase="before")
    plan = (await cloud.system.call("GET", f"/clients/{client_id}/migrate?dry_run=true", status=200))["data"]
    assert "Docker does not answer" in plan["attributes"]["blocks"][0]


async def test_a_plan_does_nothing(cloud: Cloud, client_id: str) -> None:
    count = cloud.sql("SELECT count(*) FROM operations")
    plan = await cloud.system.call("GET", f"/clients/{client_id}/reboot?dry_run=true", status=200)
    assert plan["data"]["type"] == "plans"
    assert plan["data"]["attributes"]["steps"][2] == "Restart the container alfa-lab-app-a"
    assert cloud.sql("SELECT count(*) FROM operations") == count
