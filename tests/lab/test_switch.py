"""Clients change their image and their tables on real hosts, while people use them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from tests.lab.conftest import ENGINES, ON_MARIADB, ON_POSTGRESQL, Lab
from tests.lab.hosts import LabHost

NUMBERS = count(1)
HEALTH_DEADLINE_S = 15
VISITORS = 4
PAUSE_S = 0.03 if os.environ.get("ALFA_LAB") == "full" else 0.3
"""Without a pause to speak of they take up the whole machine, beside other tests."""
OLD, NEW, BAD, BROKEN = "1.0.0-master", "1.1.0-dev", "8.8.8-badmigrate", "9.9.9-broken"


@dataclass
class Load:
    """Visitors of a client, each request on a connection of its own.

    Args:
        write: whether they put samples in, and remember those that they were told are there.
    """

    host: LabHost
    domain: str
    write: bool = False
    answers: Counter[str] = field(default_factory=Counter)
    saved: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many requests were answered otherwise than well."""
        return sum(number for answer, number in self.answers.items() if answer not in ("200", "201"))

    async def visit(self) -> None:
        """One visitor, for as long as it takes."""
        while True:
            code = f"s-{next(NUMBERS)}"
            try:
                status = await self._ask(code)
            except (OSError, IndexError, asyncio.IncompleteReadError) as error:
                status = type(error).__name__
            self.answers[status] += 1
            if status == "201":
                self.saved.append(code)
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, code: str) -> str:
        reader, writer = await asyncio.open_connection(self.host.address, 80)
        body = json.dumps({"code": code, "patient": "Ёж"}).encode() if self.write else b""
        line = "POST /samples" if self.write else "GET /"
        head = (
            f"{line} HTTP/1.1\r\nHost: {self.domain}\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
        )
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        try:
            answer = await reader.read()
            return answer.split(b" ", 2)[1].decode()
        finally:
            writer.close()


@asynccontextmanager
async def load(host: LabHost, domain: str, *, write: bool = False) -> AsyncIterator[Load]:
    """Visitors come from the start of the block to a moment after its end."""
    made = Load(host, domain, write)
    visitors = [asyncio.create_task(made.visit()) for _ in range(VISITORS)]
    await asyncio.sleep(0.5)
    try:
        yield made
        await asyncio.sleep(0.5)
    finally:
        for visitor in visitors:
            visitor.cancel()
        await asyncio.gather(*visitors, return_exceptions=True)
        print(f"\n{made.domain}: {dict(made.answers)}, {len(made.saved)} saved")


async def run(lab: Lab, path: str, *, expect: str = "ok", **params: Any) -> Any:
    """A command, to its end; its attributes, its id and how long it took in seconds."""
    began = time.monotonic()
    answer = await lab.system.call("POST", path, status=202, params=params)
    ended = await lab.system.ended(answer["data"]["id"], expect=expect)
    return {**ended, "id": answer["data"]["id"], "seconds": time.monotonic() - began}


async def born(lab: Lab, engine: str, name: str) -> tuple[str, Any]:
    """A client that is alive, with some samples."""
    client_id, operation_id = await lab.system.create(f"{name}-{engine}", lab.servers[engine], image=OLD)
    await lab.system.ended(operation_id, expect="ok")
    return client_id, await lab.system.client(client_id)


def containers(host: LabHost, name: str) -> list[str]:
    """The containers of a client, each with its image."""
    listing = ["docker", "ps", "-a", "--filter", f"name=alfa-{name}-", "--format", "{{.Names}} {{.Image}} {{.ID}}"]
    return host.exec(listing).stdout.decode().splitlines()


def content(host: LabHost, engine: str, client_id: str) -> list[str]:
    """Everything in a client's database, structure and rows."""
    database = f"alfa_{client_id}"
    if engine == "mariadb":
        argv = ["mariadb-dump", "--skip-dump-date", "--skip-extended-insert", database]
    else:
        argv = ["runuser", "-u", "postgres", "--", "pg_dump", "--inserts", database]
    text = host.exec(argv).stdout.decode()
    assert "samples" in text
    return sorted(line for line in text.splitlines() if not line.startswith(("\\", "--")))


def assert_saved(host: LabHost, engine: str, client_id: str, saved: list[str]) -> None:
    """Every sample that somebody was told is there, is there."""
    database, sql = f"alfa_{client_id}", "SELECT code FROM samples"
    argv = ["mariadb", "-BNe", sql, database]
    if engine != "mariadb":
        argv = ["runuser", "-u", "postgres", "--", "psql", "-Atc", sql, database]
    found = set(host.exec(argv).stdout.decode().split())
    assert saved
    assert [code for code in saved if code not in found] == []


@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_a_switch_fails_no_request(lab: Lab, engine: str) -> None:
    host = lab.hosts[engine]
    client_id, client = await born(lab, engine, "switch")
    async with load(host, client["domain"]) as visitors:
        ended = await run(lab, f"/clients/{client_id}/switch/{NEW}")
        assert (await lab.system.client(client_id))["version"] == NEW
        now = containers(host, client["name"])
        again = await run(lab, f"/clients/{client_id}/switch/alfa:{NEW}")
        assert containers(host, client["name"]) == now
        back = await run(lab, f"/clients/{client_id}/switch/master")
    print(f"{engine}: {ended['seconds']:.1f} s, again {again['seconds']:.1f} s, back {back['seconds']:.1f} s")
    assert visitors.failed == 0
    assert sum(visitors.answers.values()) > 30
    client = await lab.system.client(client_id)
    assert (client["version"], client["image"], client["migration_pending"]) == (OLD, "master", True)
    assert [line.split()[1] for line in containers(host, client["name"])] == [f"alfa:{OLD}"]


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_an_image_that_does_not_become_healthy_changes_nothing(lab: Lab, engine: str) -> None:
    host = lab.hosts[engine]
    client_id, client = await born(lab, engine, "unhealthy")
    before = containers(host, client["name"])
    async with load(host, client["domain"]) as visitors:
        ended = await run(lab, f"/clients/{client_id}/switch/{BROKEN}", expect="error")
    assert visitors.failed == 0
    assert ended["error"]["code"] == "not_healthy"
    assert ended["seconds"] < HEALTH_DEADLINE_S + 10
    assert containers(host, client["name"]) == before
    lines = [line["text"] for line in await lab.system.log(f"/operations/{ended['id']}/log")]
    assert any("/up" in line for line in lines[lines.index("The container's last 30 lines:") + 1 :])
    after = await lab.system.client(client_id)
    assert (after["version"], after["available"]) == (OLD, True)


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_a_migration_that_fails_leaves_image_and_data_as_before(lab: Lab, engine: str) -> None:
    host = lab.hosts[engine]
    client_id, client = await born(lab, engine, "badly")
    async with load(host, client["domain"], write=True):
        pass
    before, running = content(host, engine, client_id), containers(host, client["name"])
    ended = await run(lab, f"/clients/{client_id}/switch/{BAD}", expect="error", run_migrate=True)
    assert ended["error"]["step"] == "Migrate the database"
    assert ended["warnings"] == []
    assert content(host, engine, client_id) == before
    assert containers(host, client["name"]) == running
    async with load(host, client["domain"], write=True) as writers:
        await run(lab, f"/clients/{client_id}/switch/{BAD}", expect="error", run_migrate=True)
    assert set(writers.answers) <= {"201", "503"}
    assert_saved(host, engine, client_id, writers.saved)
    after = await lab.system.client(client_id)
    assert (after["version"], after["maintenance"], after["migration_pending"]) == (OLD, False, False)
    assert residue(host, client["name"]) == []


@pytest.mark.parametrize("engine", ON_POSTGRESQL)
async def test_migrations_lose_nothing(lab: Lab, engine: str) -> None:
    host = lab.hosts[engine]
    client_id, client = await born(lab, engine, "well")
    async with load(host, client["domain"], write=True) as writers:
        await run(lab, f"/clients/{client_id}/switch/{NEW}", run_migrate=True)
        assert (await lab.system.client(client_id))["migration_pending"] is False
        await run(lab, f"/clients/{client_id}/migrate")
    assert set(writers.answers) <= {"201", "503"}
    assert_saved(host, engine, client_id, writers.saved)
    assert any("urgent" in line for line in content(host, engine, client_id))
    after = await lab.system.client(client_id)
    assert (after["version"], after["maintenance"], after["available"]) == (NEW, False, True)
    assert residue(host, client["name"]) == []


def residue(host: LabHost, name: str) -> list[str]:
    """What an operation may have left of a client beside its container."""
    script = f"""
    uid=$(cat /srv/alfa/clients/{name}/.alfa-client) && [ -d /srv/alfa/archive ] || echo unknown
    ls -d "/srv/alfa/archive/$uid" /srv/alfa/pages/clients/{name}.html 2>/dev/null"""
    return host.exec(["bash", "-c", script]).stdout.decode().split()


@pytest.mark.full
async def test_an_image_comes_from_another_server(lab: Lab) -> None:
    source, target = (lab.hosts[engine] for engine in ENGINES)
    dockerfile = b"FROM alfa:1.1.0-dev\nLABEL org.opencontainers.image.version=1.2.0-dev"
    build = ["sh", "-c", "DOCKER_BUILDKIT=0 docker build -t alfa:1.2.0-dev -"]
    assert source.exec(build, stdin=dockerfile).returncode == 0
    try:
        await lab.system.call("GET", f"/servers/{lab.servers[ENGINES[0]]}/images", status=200)
        client_id, client = await born(lab, ENGINES[1], "fetched")
        ended = await run(lab, f"/clients/{client_id}/switch/1.2.0-dev")
        print(f"an image of 190 MB: {ended['seconds']:.1f} s")
        assert [line.split()[1] for line in containers(target, client["name"])] == ["alfa:1.2.0-dev"]
        ids = {
            host.exec(["docker", "image", "inspect", "-f", "{{.Id}}", "alfa:1.2.0-dev"]).stdout
            for host in (source, target)
        }
        assert len(ids) == 1
        await run(lab, f"/clients/{client_id}/switch/{OLD}")
    finally:
        for host in (source, target):
            host.exec(["docker", "image", "rm", "alfa:1.2.0-dev"])
