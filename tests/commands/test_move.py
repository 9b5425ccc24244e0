"""Clients that move from one practice server to another, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from alfa_cloud.sandbox.practice import PracticeServer
from tests.fixtures.cloud import Cloud
from tests.fixtures.practice import NewPractice

NAME = "wanderer"


@pytest.fixture(scope="module")
async def other(cloud: Cloud, new_practice: NewPractice) -> AsyncIterator[tuple[PracticeServer, str]]:
    """A second practice server, and its id."""
    with new_practice() as server:
        server.authorize((await cloud.system.http.get("/ssh_public_key", headers={"Accept": "text/plain"})).text)
        worker = cloud.start_worker()
        server_id = await cloud.system.register(
            name="other",
            host=server.host,
            port=server.port,
            username=server.username,
            database_engine="postgresql",
            base_domain="other.test",
            tls="none",
        )
        cloud.system.end(worker)
        yield server, server_id


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive, with files."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create(NAME, cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    storage = Path(cloud.practice.layout.root) / "clients" / NAME / "storage"
    (storage / "a" / "b").mkdir(parents=True)
    (storage / "a" / "b" / "file.txt").write_text("письмо")
    (storage / "link").symlink_to("a/b/file.txt")
    cloud.system.end(worker)
    return client_id


async def run(cloud: Cloud, path: str, *, method: str = "POST", expect: str = "ok", **options: Any) -> Any:
    """A command, to its end."""
    answer = await cloud.system.call(method, path, status=202, **options)
    return await cloud.system.ended(answer["data"]["id"], expect=expect)


def storage_of(server: PracticeServer) -> Path:
    return Path(server.layout.root) / "clients" / NAME / "storage"


@pytest.mark.usefixtures("worker")
async def test_there_and_back(cloud: Cloud, client_id: str, other: tuple[PracticeServer, str]) -> None:
    server, server_id = other
    domain = (await cloud.system.client(client_id))["domain"]
    for target, target_id in ((server, server_id), (cloud.practice, cloud.server_id)):
        ended = await run(cloud, f"/clients/{client_id}/move_to/{target_id}")
        assert ended["result"]["moved"] is True
        client = await cloud.system.client(client_id)
        assert (client["status"], client["available"], client["maintenance"]) == ("active", True, False)
        assert (storage_of(target) / "link").read_text() == "письмо"
        assert [(await cloud.visit(domain, server=one)).status_code for one in (cloud.practice, server)] == [200, 200]
        assert cloud.sql(f"SELECT server_id FROM clients WHERE id = {client_id}") == target_id
    running = [line for line in cloud.containers() if f"alfa-{NAME}-" in line]
    assert len(running) == 1


@pytest.mark.usefixtures("worker")
async def test_a_move_is_undone(cloud: Cloud, client_id: str, other: tuple[PracticeServer, str]) -> None:
    _, server_id = other
    answer = await cloud.system.call("POST", f"/clients/{client_id}/move_to/{server_id}", status=202)
    await cloud.system.ended(answer["data"]["id"], expect="ok")
    await run(cloud, f"/operations/{answer['data']['id']}/undo")
    assert cloud.sql(f"SELECT server_id FROM clients WHERE id = {client_id}") == cloud.server_id
    domain = (await cloud.system.client(client_id))["domain"]
    assert [(await cloud.visit(domain, server=one)).status_code for one in (cloud.practice, other[0])] == [200, 200]


@pytest.mark.usefixtures("worker")
async def test_a_copy(cloud: Cloud, client_id: str, other: tuple[PracticeServer, str]) -> None:
    server, server_id = other
    path = f"/clients/{client_id}/copy_to/{server_id}"
    refused = await cloud.system.call("POST", path, status=409)
    assert "stage" in refused["errors"][0]["detail"]
    await cloud.system.call("PATCH", f"/servers/{server_id}", json={"role": "stage"}, status=200)
    ended = await run(cloud, path)
    copy = await cloud.system.client(ended["result"]["client_id"])
    assert (copy["name"], copy["status"], copy["available"]) == (f"{NAME}-copy", "active", True)
    assert "copy of wanderer" in copy["actions"]["send_success"]["reason"]
    files = Path(server.layout.root) / "clients" / copy["name"] / "storage"
    assert (files / "link").read_text() == "письмо"
    await run(cloud, f"/clients/{ended['result']['client_id']}", method="DELETE")


@pytest.mark.usefixtures("worker")
async def test_backups(cloud: Cloud, client_id: str) -> None:
    ended = await run(cloud, f"/clients/{client_id}/backups")
    listed = await cloud.system.call("GET", f"/clients/{client_id}/backups", status=200)
    backup = listed["data"][0]
    assert ended["result"]["backup"]["sha256"] == backup["attributes"]["sha256"]
    file = storage_of(cloud.practice) / "a" / "b" / "file.txt"
    file.write_text("другое")
    await run(cloud, f"/clients/{client_id}/backups/{backup['id']}/restore")
    assert file.read_text() == "письмо"


@pytest.mark.usefixtures("worker")
async def test_deleted_and_back(cloud: Cloud, client_id: str, other: tuple[PracticeServer, str]) -> None:
    await run(cloud, f"/clients/{client_id}", method="DELETE")
    assert (await cloud.system.client(client_id))["status"] == "archived"
    assert cloud.residue(NAME, client_id) == []
    assert not storage_of(other[0]).exists()
    await run(cloud, f"/clients/{client_id}/restore")
    assert (storage_of(cloud.practice) / "link").read_text() == "письмо"
    await run(cloud, f"/clients/{client_id}", method="DELETE")
    await run(cloud, f"/clients/{client_id}/restore", params={"server_id": other[1]})
    assert (storage_of(other[0]) / "link").read_text() == "письмо"
    await asyncio.sleep(0)
