"""Demo data of a real Laravel application, on both database systems."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from alfa_cloud.remote import users
from alfa_cloud.specs import DatabaseEngine
from tests.lab.conftest import ON_MARIADB, ON_POSTGRESQL, Lab
from tests.playbooks.specs import make_spec

DEMO_SAMPLES = 25


async def run(lab: Lab, path: str, *, expect: str = "ok") -> Any:
    """A command, to its end."""
    answer = await lab.system.call("POST", path, status=202)
    return await lab.system.ended(answer["data"]["id"], expect=expect)


def sql(lab: Lab, engine: str, client_id: str, text: str) -> str:
    """What the client's database says to its administrator."""
    if engine == DatabaseEngine.MARIADB:
        done = lab.hosts[engine].exec(["mariadb", "-BN", f"alfa_{client_id}", "-e", text])
    else:
        argv = ["runuser", "-u", "postgres", "--", "psql", "-qAt", "-d", f"alfa_{client_id}", "-c", text]
        done = lab.hosts[engine].exec(argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def samples(lab: Lab, engine: str, client_id: str) -> tuple[int, int]:
    """How many samples the laboratory has: in all, and of the demo."""
    every, demo = (
        int(sql(lab, engine, client_id, f"SELECT count(*) FROM samples{where}")) for where in ("", " WHERE demo")
    )
    return every, demo


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_POSTGRESQL)
async def test_the_demo_data_comes_and_goes(lab: Lab, engine: str) -> None:
    name, host = f"demo-{engine}", lab.hosts[engine]
    client_id, operation_id = await lab.system.create(name, lab.servers[engine])
    await lab.system.ended(operation_id, expect="ok")
    domain, path = (await lab.system.client(client_id))["domain"], f"/clients/{client_id}"
    for _ in range(2):
        await run(lab, f"{path}/demo_enable")
        assert samples(lab, engine, client_id) == (DEMO_SAMPLES, DEMO_SAMPLES)
        assert (await lab.system.client(client_id))["demo"] is True
    await run(lab, f"{path}/demo_disable")
    assert samples(lab, engine, client_id) == (0, 0)
    # The inverse seeder cannot find its table; the dump of before can still be brought back.
    await run(lab, f"{path}/demo_enable")
    sql(lab, engine, client_id, "ALTER TABLE samples RENAME TO hidden")
    failed = await run(lab, f"{path}/demo_disable", expect="error")
    assert failed["error"]["step"] == "Take the demo data away"
    assert (await lab.system.client(client_id))["demo"] is True
    await run(lab, f"{path}/demo_disable?restore_backup=true&confirm_loss=true")
    assert samples(lab, engine, client_id) == (0, 0)
    client = await lab.system.client(client_id)
    assert (client["demo"], client["maintenance"]) == (False, False)
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"http://{host.address}/up", headers={"Host": domain})).status_code == 200


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_users_and_the_containers_log_are_looked_at(lab: Lab, engine: str) -> None:
    name = f"looks-{engine}"
    client_id, operation_id = await lab.system.create(name, lab.servers[engine])
    await lab.system.ended(operation_id, expect="ok")
    counting = users.count([make_spec(id=int(client_id), name=name, engine=DatabaseEngine(engine))])
    counted = lab.hosts[engine].exec(counting.argv, stdin=counting.stdin)
    assert users.parse(counted.stdout.decode()) == {int(client_id): 1}
    answer = await lab.system.call("GET", f"/clients/{client_id}/container_log?tail_lines=5", status=200)
    assert answer["data"]["attributes"]["container"] == f"alfa-{name}-app-a"
    assert 0 < len(answer["data"]["attributes"]["lines"]) <= 5
    headers, follower = {"Accept": "text/event-stream"}, ["pgrep", "--full", f"container logs.*alfa-{name}-app-a"]
    async with lab.system.http.stream("GET", f"/clients/{client_id}/container_log", headers=headers) as stream:
        line = await anext(line async for line in stream.aiter_lines() if line.startswith("data: "))
        assert json.loads(line[6:])["text"]
        assert lab.hosts[engine].exec(follower).returncode == 0
    async with asyncio.timeout(20):
        while lab.hosts[engine].exec(follower).returncode == 0:
            await asyncio.sleep(0.2)
