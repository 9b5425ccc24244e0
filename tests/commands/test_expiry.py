"""The last day of use on a server: what it means there, and that what is shown is what is."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.fixtures.cloud import Cloud

PAST, FUTURE = "2020-01-31", "2100-01-31"


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create("term", cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    return client_id


async def set_date(cloud: Cloud, client_id: str, day: str | None, *, expect: str = "ok") -> Any:
    """A new last day, brought to the server."""
    body = {"expire_date": day}
    answer = await cloud.system.call("POST", f"/clients/{client_id}/expire_date", status=200, json=body)
    assert answer["data"]["attributes"]["expire_date"] == day
    operation_id = answer["data"]["relationships"]["operation"]["data"]["id"]
    return await cloud.system.ended(operation_id, expect=expect)


async def visit(cloud: Cloud, client_id: str) -> httpx.Response:
    """What a visitor sees."""
    client = await cloud.system.client(client_id)
    return await cloud.visit(client["domain"])


def settings(cloud: Cloud, client_id: str) -> dict[str, str]:
    """What the client's own database says."""
    sql = "SELECT name || '=' || coalesce(value, 'null') FROM cloud_settings"
    psql = ("psql", "--no-psqlrc", "-At", "-d", f"alfa_{client_id}", "-c", sql)
    lines = cloud.on_server("sudo", "-n", "-u", "postgres", "--", *psql).split()
    return dict(line.split("=", 1) for line in lines)


async def state(cloud: Cloud, client_id: str) -> tuple[str, bool]:
    """The client's status, and whether it is blocked."""
    found = await cloud.system.client(client_id)
    return found["status"], found["blocked"]


@pytest.mark.usefixtures("worker")
async def test_an_ended_term_shows_its_page_and_a_later_date_takes_it_away(cloud: Cloud, client_id: str) -> None:
    ended = await set_date(cloud, client_id, PAST)
    assert ended["result"] == {"blocked": True}
    page = await visit(cloud, client_id)
    assert (page.status_code, page.headers["retry-after"]) == (503, "86400")
    assert "Срок использования истёк" in page.text
    assert await state(cloud, client_id) == ("expired", True)
    assert (settings(cloud, client_id)["blocked"], settings(cloud, client_id)["expire_date"]) == ("1", PAST)
    assert (await cloud.system.client(client_id))["available"] is True
    await set_date(cloud, client_id, FUTURE)
    assert (await visit(cloud, client_id)).status_code == 200
    assert await state(cloud, client_id) == ("active", False)
    assert (settings(cloud, client_id)["blocked"], settings(cloud, client_id)["expire_date"]) == ("0", FUTURE)


@pytest.mark.usefixtures("worker")
async def test_under_maintenance_the_ended_term_goes_first(cloud: Cloud, client_id: str) -> None:
    answer = await cloud.system.call("POST", f"/clients/{client_id}/maintain_enable?page_text=Note+7", status=202)
    await cloud.system.ended(answer["data"]["id"], expect="ok")
    await set_date(cloud, client_id, PAST)
    page = await visit(cloud, client_id)
    assert "Срок использования истёк" in page.text
    assert "Note 7" not in page.text
    await set_date(cloud, client_id, None)
    page = await visit(cloud, client_id)
    assert "Техническое обслуживание" in page.text
    assert "Note 7" in page.text
    assert settings(cloud, client_id)["expire_date"] == "null"
    answer = await cloud.system.call("POST", f"/clients/{client_id}/maintain_disable", status=202)
    await cloud.system.ended(answer["data"]["id"], expect="ok")


@pytest.mark.usefixtures("worker")
async def test_a_server_that_cannot_be_told_leaves_the_client_as_it_was(cloud: Cloud, client_id: str) -> None:
    cloud.practice.fault("alfa-vhost .*/vhost.loaded", action="fail", phase="before")
    ended = await set_date(cloud, client_id, PAST, expect="error")
    assert ended["error"]["step"] == "Virtual host term.practice.test"
    cloud.practice.clear_faults()
    assert await state(cloud, client_id) == ("active", False)
    assert (await cloud.system.client(client_id))["expire_date"] == PAST
    assert (await visit(cloud, client_id)).status_code == 200
    await set_date(cloud, client_id, None)


@pytest.mark.usefixtures("worker")
async def test_a_client_whose_database_is_away_is_blocked_all_the_same(cloud: Cloud, client_id: str) -> None:
    cloud.practice.fault("psql.*--dbname=alfa_", action="fail", phase="before")
    ended = await set_date(cloud, client_id, PAST)
    assert len(ended["warnings"]) == 1
    assert "could not be written" in ended["warnings"][0]
    assert "Срок использования истёк" in (await visit(cloud, client_id)).text
    assert await state(cloud, client_id) == ("expired", True)
    cloud.practice.clear_faults()
    await set_date(cloud, client_id, None)
    assert settings(cloud, client_id)["blocked"] == "0"


@pytest.mark.usefixtures("worker")
async def test_a_container_that_is_down_is_blocked_all_the_same(cloud: Cloud, client_id: str) -> None:
    cloud.on_server("docker", "stop", "alfa-term-app-a")
    await set_date(cloud, client_id, PAST)
    assert "Срок использования истёк" in (await visit(cloud, client_id)).text
    cloud.on_server("docker", "start", "alfa-term-app-a")
    await set_date(cloud, client_id, None)
    assert await state(cloud, client_id) == ("active", False)
