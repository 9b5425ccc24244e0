"""Servers as a whole, on real hosts: rebooted, away, checked and mended, and one that begins with nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.lab.conftest import ON_MARIADB, ON_POSTGRESQL, Lab
from tests.lab.hosts import LabHost, start_bare
from tests.system import System

IMAGE = "alfa:1.0.0-master"


def boot_id(host: LabHost) -> str:
    return host.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.decode().strip()


async def command(system: System, server_id: str, path: str, method: str = "POST") -> str:
    """The id of a new operation on a server."""
    return str((await system.call(method, f"/servers/{server_id}/{path}", status=202))["data"]["id"])


async def show(system: System, server_id: str) -> Any:
    """A server's attributes; it is shown within 2 s, whatever its state."""
    began = time.monotonic()
    found = (await system.call("GET", f"/servers/{server_id}", status=200))["data"]["attributes"]
    assert time.monotonic() - began < 3
    return found


async def fresh_load(system: System, server_id: str) -> Any:
    """A server's load of now; a slow machine may need another try."""
    for _ in range(20):
        load = (await show(system, server_id))["load"]
        if load is not None and not load["stale"]:
            break
    return load


async def check(system: System, server_id: str) -> dict[str, Any]:
    """Every requirement by its name."""
    found = await system.call("GET", f"/servers/{server_id}/check", status=200)
    assert found["meta"]["ok"] is all(
        row["attributes"]["ok"] or not row["attributes"]["required"] for row in found["data"]
    )
    return {row["id"]: row["attributes"] for row in found["data"]}


def workers(system: System) -> list[Any]:
    return [one for one in system.processes if "worker" in one.args and one.poll() is None]


def replace_workers(system: System, **environment: str) -> None:
    """The workers were killed, and as many new ones run, with these variables."""
    for process in workers(system):
        process.kill()
        process.wait()
        system.environment.update(environment)
        system.start_worker()


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_a_server_is_rebooted_and_its_clients_are_back(lab: Lab, engine: str) -> None:
    system, host, server_id = lab.system, lab.hosts[engine], lab.servers[engine]
    client_id, operation_id = await system.create(f"reboot-{engine}", server_id)
    other_id, other_operation_id = await system.create(f"reboot-later-{engine}", server_id)
    for one in (operation_id, other_operation_id):
        await system.ended(one, expect="ok")
    domain, before = (await system.client(client_id))["domain"], boot_id(host)
    operation_id = await command(system, server_id, "reboot_server", "GET")
    later = (await system.call("POST", f"/clients/{other_id}/reboot", status=202))["data"]["id"]
    ended = await system.ended(operation_id, expect="ok", within_s=300)
    assert boot_id(host) != before == ended["result"]["rebooted_from"]
    assert domain in ended["result"]["domains"]
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"http://{host.address}/", headers={"Host": domain})).status_code == 200
    after = await system.ended(later, expect="ok")
    assert after["started_at"] >= ended["finished_at"]
    load = await fresh_load(system, server_id)
    assert (load["stale"], load["containers_running"] >= 1) == (False, True)


@asynccontextmanager
async def deadline_of(system: System, seconds: int) -> AsyncIterator[None]:
    """A server that is away for longer than this does not come back."""
    replace_workers(system, ALFA_REBOOT_DEADLINE_S=str(seconds))
    try:
        yield
    finally:
        replace_workers(system, ALFA_REBOOT_DEADLINE_S="600")


@pytest.mark.full
async def test_a_server_that_never_returns(lab: Lab) -> None:
    system, host, server_id = lab.system, lab.hosts["postgresql"], lab.servers["postgresql"]
    load = await fresh_load(system, server_id)
    host.stay_down()
    try:
        async with deadline_of(system, 10):
            operation_id = await command(system, server_id, "reboot_server")
            ended = await system.ended(operation_id, expect="error", within_s=180)
            assert ended["error"]["code"] == "server_did_not_return"
            host.wait_until_down()
            last = (await show(system, server_id))["load"]
            assert (last["stale"], last["at"] >= load["at"]) == (True, True)
            await system.call("GET", f"/servers/{server_id}/check", status=503)
    finally:
        host.come_back()
    assert (await check(system, server_id))["docker"]["ok"]


# How each is broken by hand; the line that `check` gives mends it.
BROKEN = {
    "mariadb": {
        "ip_nonlocal_bind": "sysctl -qw net.ipv4.ip_nonlocal_bind=0",
        "mariadb for containers": "rm /etc/mysql/mariadb.conf.d/90-alfa-cloud.cnf; service mariadb restart",
    },
    "postgresql": {
        "ip_nonlocal_bind": "sysctl -qw net.ipv4.ip_nonlocal_bind=0",
        "postgresql for containers": "cd /; runuser -u postgres -- psql -qc 'ALTER SYSTEM RESET listen_addresses'; "
        "sed -i '/alfa_clients/d' /etc/postgresql/*/main/pg_hba.conf; service postgresql restart",
    },
}


@pytest.mark.parametrize("engine", ON_POSTGRESQL)
async def test_what_is_broken_is_mended_by_the_line_that_is_given(lab: Lab, engine: str) -> None:
    system, host, server_id = lab.system, lab.hosts[engine], lab.servers[engine]
    assert [name for name, row in (await check(system, server_id)).items() if not row["ok"]] == []
    broken = BROKEN[engine]
    for line in broken.values():
        assert host.exec(["bash", "-c", line]).returncode == 0
    found = await check(system, server_id)
    assert {name for name, row in found.items() if not row["ok"]} == set(broken)
    for name in broken:
        done = host.exec(["bash", "-c", found[name]["mend"]])
        assert done.returncode == 0, done.stderr
    assert [name for name, row in (await check(system, server_id)).items() if not row["ok"]] == []


@dataclass
class Bare:
    """A host that has nothing, and its server's id."""

    host: LabHost
    server_id: str
    prepared_by: str


@pytest.fixture(scope="module")
async def bare(lab: Lab) -> Bare:
    """A bare host, whose user has no shell when it is registered: that much is mended by hand."""
    host = await asyncio.to_thread(start_bare, 1)
    host.exec(["usermod", "--shell", "/usr/sbin/nologin", "www-data"])
    made = await lab.system.call("POST", "/servers/", json=attributes_of(host), status=201)
    (found,) = made["data"]["attributes"]["requirements"]
    assert (found["name"], made["data"]["attributes"]["requirements_ok"]) == ("login shell", False)
    operation_id = made["data"]["relationships"]["operation"]["data"]["id"]
    await lab.system.ended(operation_id, expect="error")
    # The worker's connection stands, and its sshd knows the shell of before.
    assert host.exec(["bash", "-c", found["mend"]]).returncode == 0
    return Bare(host, made["data"]["id"], operation_id)


def attributes_of(host: LabHost) -> dict[str, Any]:
    values = {"database_engine": "mariadb", "base_domain": "bare.test", "tls": "none"}
    return {"name": host.name, "host": host.address, **values}


async def test_a_bare_host_becomes_a_server(lab: Lab, bare: Bare) -> None:
    """With a worker killed while packages are installed: the next one goes on with that very run."""
    system, host, server_id = lab.system, bare.host, bare.server_id
    ended = await system.ended(bare.prepared_by)
    assert ended["error"]["code"] == "requirements_missing"
    missing = {name for name, row in (await check(system, server_id)).items() if row["required"] and not row["ok"]}
    assert {"curl", "docker", "docker compose", "nginx", "mariadb", "zstd", "ip_nonlocal_bind"} <= missing
    refused = {"name": "too-early", "email": "lab@example.org", "server_id": int(server_id)}
    answer = await system.call("POST", "/clients/", json=refused, status=409)
    assert answer["errors"][0]["code"] == "server_not_ready"
    operation_id = await command(system, server_id, "provision")
    await reached(system, operation_id, "Unpacking")
    replace_workers(system)
    ended = await system.ended(operation_id, expect="ok", within_s=600)
    assert ended["attempt"] == 2
    texts = [line["text"] for line in await system.log(f"/operations/{operation_id}/log")]
    assert len([text for text in texts if text.startswith("Setting up mariadb-server ")]) == 1
    assert any("no systemd" in warning for warning in ended["warnings"])
    assert [name for name, row in (await check(system, server_id)).items() if not row["ok"]] == []
    await assert_repeated(system, host, server_id)
    await assert_takes_a_client(system, host, server_id, "bare-mariadb")


async def reached(system: System, operation_id: str, text: str) -> None:
    """Wait until an operation's log says something."""
    for _ in range(1200):
        if any(text in line["text"] for line in await system.log(f"/operations/{operation_id}/log")):
            return
        found = (await system.call("GET", f"/operations/{operation_id}", status=200))["data"]["attributes"]
        assert found["completed"] is None, (found, await system.log(f"/operations/{operation_id}/log"))
        await asyncio.sleep(0.2)
    raise AssertionError(f"the log never says {text}: {await system.log(f'/operations/{operation_id}/log')}")


async def assert_repeated(system: System, host: LabHost, server_id: str) -> None:
    """Provisioning again changes nothing."""
    files = ["bash", "-c", "dpkg -l; find /etc /srv/alfa -type f -newermt @0 -printf '%p %T@\\n' | grep -v operations"]
    before = host.exec(files).stdout
    again = await system.ended(await command(system, server_id, "provision"), expect="ok")
    assert {step["state"] for step in again["steps"] if not step["name"].startswith("check_")} == {"skipped"}
    assert host.exec(files).stdout == before


async def assert_takes_a_client(system: System, host: LabHost, server_id: str, name: str) -> None:
    """A client comes to life there."""
    await asyncio.to_thread(host.load_image, IMAGE)
    client_id, operation_id = await system.create(name, server_id)
    await system.ended(operation_id, expect="ok")
    assert (await system.client(client_id))["available"] is True


@pytest.mark.full
async def test_the_other_database_system_is_provisioned_too(lab: Lab, bare: Bare) -> None:
    system, host = lab.system, await asyncio.to_thread(start_bare, 2)
    made = await system.call(
        "POST", "/servers/", json={**attributes_of(host), "database_engine": "postgresql"}, status=201
    )
    server_id = made["data"]["id"]
    await system.ended(await command(system, server_id, "provision"), expect="ok", within_s=600)
    await assert_repeated(system, host, server_id)
    await assert_takes_a_client(system, host, server_id, "bare-postgresql")


async def test_a_host_that_was_set_up_anew_is_trusted_again_by_its_fingerprint(lab: Lab, bare: Bare) -> None:
    system, host, path = lab.system, bare.host, f"/servers/{bare.server_id}"
    await fresh_load(system, bare.server_id)
    renew = "rm /etc/ssh/ssh_host_*; ssh-keygen -qA; service ssh restart; pkill -f 'sshd-session' || true"
    host.exec(["bash", "-c", renew])
    found: dict[str, Any] = {}
    for _ in range(3):
        found = await show(system, bare.server_id)
    assert (found["host_key_changed"], found["reachable"], found["load"]["stale"]) == (True, False, True)
    await system.call("POST", f"{path}/provision", status=502)
    told = await system.call("POST", f"{path}/host_key", json={}, status=422)
    shown = told["errors"][0]["meta"]["shown"]
    own = host.exec(["bash", "-c", "cat /etc/ssh/ssh_host_*_key.pub | ssh-keygen -lf -"]).stdout.decode()
    assert shown in own
    await system.call("POST", f"{path}/host_key", json={"fingerprint": shown}, status=200)
    assert (await fresh_load(system, bare.server_id))["stale"] is False
