"""Commands of a whole server: rebooted, provisioned, checked."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.fixtures.cloud import Cloud, gone

DEADLINE_S = 15


@pytest.fixture(scope="module", autouse=True)
def short_deadline(cloud: Cloud) -> None:
    """A server that is away for longer does not come back."""
    cloud.system.environment["ALFA_REBOOT_DEADLINE_S"] = str(DEADLINE_S)


@pytest.fixture(autouse=True)
def no_worker_left(cloud: Cloud) -> Iterator[None]:
    """A worker of one test must not take the next one's work."""
    yield
    for process in cloud.workers:
        cloud.system.end(process, signal.SIGKILL)


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create("lab", cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    return client_id


async def command(cloud: Cloud, path: str, method: str = "POST") -> str:
    """The id of a new operation on the server."""
    answer = await cloud.system.call(method, f"/servers/{cloud.server_id}/{path}", status=202)
    return str(answer["data"]["id"])


def reboots(cloud: Cloud) -> int:
    """How often the server was told to reboot."""
    return len(cloud.practice.commands("reboot", kind="stand_in"))


async def test_a_reboot_is_proven_and_what_comes_later_waits(cloud: Cloud, client_id: str) -> None:
    before, told = cloud.practice.boot_id, reboots(cloud)
    cloud.start_worker()
    operation_id = await command(cloud, "reboot_server", "GET")
    later = (await cloud.system.call("POST", f"/clients/{client_id}/reboot", status=202))["data"]["id"]
    ended = await cloud.system.ended(operation_id, expect="ok")
    assert cloud.practice.boot_id != before == ended["result"]["rebooted_from"]
    assert ended["result"]["domains"] == ["lab.practice.test"]
    assert reboots(cloud) == told + 1
    assert [step["state"] for step in ended["steps"]] == ["done"] * 3
    after = await cloud.system.ended(later, expect="ok")
    assert after["started_at"] >= ended["finished_at"]
    await cloud.assert_sound(operation_id, ended)


@pytest.mark.usefixtures("client_id")
async def test_a_worker_killed_after_the_reboot_is_replaced_and_there_is_no_second_one(cloud: Cloud) -> None:
    before, told = cloud.practice.boot_id, reboots(cloud)
    dying = cloud.start_worker("reboot_server.reboot_server:effect:kill")
    operation_id = await command(cloud, "reboot_server")
    await gone(dying)
    cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="ok")
    assert (ended["attempt"], reboots(cloud)) == (2, told + 1)
    assert ended["result"]["rebooted_from"] == before
    await cloud.assert_sound(operation_id, ended)


@pytest.mark.usefixtures("client_id")
async def test_a_worker_killed_while_the_server_is_away_is_replaced(cloud: Cloud) -> None:
    """The next one finds nobody at home, and waits, since it knows why."""
    told = reboots(cloud)
    (cloud.practice.folder.state / "down_s").write_text("6")
    dying = cloud.start_worker()
    try:
        operation_id = await command(cloud, "reboot_server")
        while reboots(cloud) == told:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)
        cloud.system.end(dying, signal.SIGKILL)
        cloud.start_worker()
        ended = await cloud.system.ended(operation_id, expect="ok")
    finally:
        (cloud.practice.folder.state / "down_s").unlink(missing_ok=True)
    assert (ended["attempt"], reboots(cloud)) == (2, told + 1)


async def test_a_server_that_does_not_return(cloud: Cloud, client_id: str) -> None:
    cloud.start_worker()
    cloud.practice.fault(r"^(\S*/)?reboot", "fail", exit_status=0)
    operation_id = await command(cloud, "reboot_server")
    later = (await cloud.system.call("POST", f"/clients/{client_id}/reboot", status=202))["data"]["id"]
    ended = await cloud.system.ended(operation_id, expect="error")
    assert (ended["error"]["code"], ended["error"]["step"]) == ("server_did_not_return", "Reboot")
    assert f"{DEADLINE_S} s" in ended["error"]["message"]
    await cloud.system.ended(later, expect="ok")
    await cloud.assert_sound(operation_id, ended)


async def test_a_server_that_refuses_to_reboot(cloud: Cloud) -> None:
    cloud.start_worker()
    cloud.practice.fault(r"^(\S*/)?reboot", "fail", exit_status=1, stderr="Call to Reboot failed: Access denied")
    ended = await cloud.system.ended(await command(cloud, "reboot_server"), expect="error")
    assert ended["error"]["code"] == "reboot_refused"


async def test_a_client_that_does_not_come_back_is_named(cloud: Cloud, client_id: str) -> None:
    cloud.start_worker()
    before = cloud.sql(f"SELECT domain FROM clients WHERE id = {client_id}")
    cloud.sql(f"UPDATE clients SET domain = 'elsewhere.practice.test', available = true WHERE id = {client_id}")
    try:
        ended = await cloud.system.ended(await command(cloud, "reboot_server"), expect="error")
    finally:
        cloud.sql(f"UPDATE clients SET domain = '{before}' WHERE id = {client_id}")
    assert ended["error"]["code"] == "clients_did_not_return"
    assert "elsewhere.practice.test" in ended["error"]["message"]


async def test_a_server_that_has_all_is_left_as_it_is_by_provisioning(cloud: Cloud) -> None:
    cloud.start_worker()
    ended = await cloud.system.ended(await command(cloud, "provision"), expect="ok")
    states = {step["name"]: step["state"] for step in ended["steps"]}
    looks = {name for name, state in states.items() if state == "done"}
    assert looks == {"check_login", "check_nginx_good", "check_requirements"}
    assert set(states.values()) == {"done", "skipped"}
    assert all(row["ok"] for row in ended["result"]["requirements"] if row["required"])
    server = (await cloud.system.call("GET", f"/servers/{cloud.server_id}", status=200))["data"]
    assert server["relationships"]["operation"]["data"]["id"]
    assert server["attributes"]["requirements_ok"] is True


async def test_what_only_a_person_can_mend_is_said(cloud: Cloud) -> None:
    cloud.start_worker()
    cloud.practice.fault("sudo -n -- .* id --user", "fail", stderr="sudo: a password is required")
    ended = await cloud.system.ended(await command(cloud, "provision"), expect="error")
    assert ended["error"]["code"] == "requirements_missing"
    assert "/etc/sudoers.d/www-data" in ended["error"]["message"]
