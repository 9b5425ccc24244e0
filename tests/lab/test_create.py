"""Clients come to life on real hosts."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from alfa_cloud.sandbox.stores import EmbeddedRedis
from tests.lab.conftest import ENGINES, ON_MARIADB, ON_POSTGRESQL, Lab
from tests.lab.hosts import LabHost

PASSWORD = "Пароль $HOME 'и' \"кавычки\" \\ 1"


async def get(host: LabHost, domain: str, path: str = "/") -> httpx.Response:
    """What a visitor of a client sees."""
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://{host.address}{path}", headers={"Host": domain})


def tables(host: LabHost, engine: str, database: str) -> set[str]:
    """The tables of a client, as the database's administrator sees them."""
    if engine == "mariadb":
        argv = ["mariadb", "-BNe", "show tables", database]
    else:
        sql = "select tablename from pg_tables where schemaname = 'public'"
        argv = ["runuser", "-u", "postgres", "--", "psql", "-At", "-c", sql, database]
    return set(host.exec(argv).stdout.decode().split())


def residue(host: LabHost, engine: str, name: str, number: str) -> list[str]:
    """What is left of a client on a host."""
    listing = "runuser -u postgres -- psql -lAt; runuser -u postgres -- psql -Atc '\\du'"
    if engine == "mariadb":
        listing = "mariadb -BNe 'show databases; select user from mysql.user'"
    script = f"""
    ls -d /srv/alfa/clients/{name} /etc/nginx/conf.d/alfa-{name}.conf* 2>/dev/null
    docker ps -aq --filter name=alfa-{name}-
    cd / && ({listing}) | grep -w 'alfa_{number}'
    """
    return host.exec(["bash", "-c", script]).stdout.decode().split()


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_comes_to_life(lab: Lab, engine: str) -> None:
    system, host = lab.system, lab.hosts[engine]
    name = f"first-{engine}"
    client_id, operation_id = await system.create(
        name, lab.servers[engine], title="Лаб «$HOME» №1", owner_password=PASSWORD
    )
    await system.ended(operation_id, expect="ok")
    client = await system.client(client_id)
    assert (client["status"], client["available"], client["version"]) == ("active", True, "1.0.0-master")
    page = await get(host, client["domain"])
    assert page.status_code == 200
    assert "Лаб «$HOME» №1" in page.text
    assert {"users", "samples", "migrations", "cloud_settings"} <= tables(host, engine, f"alfa_{client_id}")
    await assert_login(host, client["domain"], "lab@example.org", PASSWORD)
    await assert_isolated(host, name)
    assert PASSWORD not in json.dumps(await system.log(f"/clients/{client_id}/create_log"), ensure_ascii=False)


async def assert_login(host: LabHost, domain: str, login: str, password: str) -> None:
    """The owner logs in with exactly this password, and with no other."""
    async with httpx.AsyncClient(trust_env=False) as http:
        for tried, status in ((password, 200), (password + "x", 401)):
            answer = await http.post(
                f"http://{host.address}/login",
                headers={"Host": domain, "Accept": "application/json"},
                json={"login": login, "password": tried},
            )
            assert answer.status_code == status


async def assert_isolated(host: LabHost, name: str) -> None:
    """The container has few rights, and nothing of it listens beyond loopback."""
    found = json.loads(host.exec(["docker", "inspect", f"alfa-{name}-app-a"]).stdout)[0]["HostConfig"]
    assert found["CapDrop"] == ["ALL"]
    assert found["SecurityOpt"] == ["no-new-privileges:true"]
    assert {binding["HostIp"] for port in found["PortBindings"].values() for binding in port} == {"127.0.0.1"}
    modes = host.exec(["stat", "-c", "%a %U", f"/srv/alfa/clients/{name}/compose.yaml"]).stdout.decode()
    assert modes.strip() == "600 root"


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_an_unhealthy_image_leaves_nothing(lab: Lab, engine: str) -> None:
    system = lab.system
    name = f"broken-{engine}"
    client_id, operation_id = await system.create(name, lab.servers[engine], image="9.9.9-broken")
    ended = await system.ended(operation_id)
    assert ended["completed"] == "error"
    assert ended["error"]["code"] == "not_healthy"
    assert "/up" in ended["error"]["step"]
    assert (await system.client(client_id))["status"] == "failed"
    assert residue(lab.hosts[engine], engine, name, client_id) == []


@pytest.mark.parametrize("engine", ON_POSTGRESQL)
async def test_a_migration_that_fails_leaves_nothing_and_the_client_can_be_deleted(lab: Lab, engine: str) -> None:
    system = lab.system
    name = f"bad-{engine}"
    client_id, operation_id = await system.create(name, lab.servers[engine], image="8.8.8-badmigrate")
    ended = await system.ended(operation_id)
    assert ended["error"]["code"] == "command_failed"
    assert ended["error"]["step"] == "Migrate the database"
    assert residue(lab.hosts[engine], engine, name, client_id) == []
    deletion = await system.call("DELETE", f"/clients/{client_id}", status=202)
    await system.ended(deletion["data"]["id"], expect="ok")
    await system.call("GET", f"/clients/{client_id}", status=404)


async def test_ten_at_once_on_two_hosts(lab: Lab) -> None:
    system, servers = lab.system, list(lab.servers.values())
    made = [await system.create(f"many-{n}", servers[n % 2]) for n in range(10)]
    ended = await asyncio.gather(*(system.ended(operation_id) for _, operation_id in made))
    assert [(one["completed"], one["error"]) for one in ended] == [("ok", None)] * 10


FULL_STEPS = [pytest.param(step, marks=pytest.mark.full) for step in ("ensure_container", "ensure_virtual_host")]


@pytest.mark.parametrize("step", ["migrate", *FULL_STEPS])
async def test_a_killed_worker_is_replaced(lab: Lab, step: str, redis_store: EmbeddedRedis) -> None:
    """Another worker finishes what a killed one began, and nothing is done twice."""
    system = lab.system
    client_id, operation_id = await system.create(f"killed-{step.replace('_', '-')}", lab.servers["mariadb"])
    while True:
        found = (await system.call("GET", f"/operations/{operation_id}"))["data"]["attributes"]
        state = next((one["state"] for one in found["steps"] if one["name"] == step), None)
        if state == "running" or found["completed"]:
            break
    for process in [one for one in system.processes if "worker" in one.args]:
        process.kill()
        process.wait()
        system.start_worker()
    ended = await system.ended(operation_id, expect="ok")
    lines = await system.log(f"/operations/{operation_id}/log")
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    texts = [line["text"] for line in lines]
    for title in ("users", "samples"):
        assert len([text for text in texts if f"create_{title}_table" in text]) == 1
    assert ended["attempt"] <= 2
    assert (await system.client(client_id))["available"] is True
