"""The last day of use on real hosts."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from alfa_cloud.specs import DatabaseEngine
from tests.lab.conftest import ON_MARIADB, Lab
from tests.lab.hosts import LabHost


async def set_date(lab: Lab, client_id: str, day: str | None) -> Any:
    """A new last day, brought to the server."""
    body = {"expire_date": day}
    answer = await lab.system.call("POST", f"/clients/{client_id}/expire_date", status=200, json=body)
    return await lab.system.ended(answer["data"]["relationships"]["operation"]["data"]["id"], expect="ok")


async def visit(host: LabHost, domain: str) -> httpx.Response:
    """What a visitor sees."""
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://{host.address}/", headers={"Host": domain})


def settings(host: LabHost, engine: str, client_id: str) -> dict[str, str | None]:
    """What the client's own database says."""
    if engine == DatabaseEngine.MARIADB:
        sql = "SELECT JSON_OBJECTAGG(name, value) FROM cloud_settings"
        done = host.exec(["mariadb", "-BN", "--raw", f"alfa_{client_id}", "-e", sql])
    else:
        sql = "SELECT json_object_agg(name, value) FROM cloud_settings"
        done = host.exec(["runuser", "-u", "postgres", "--", "psql", "-qAt", "-d", f"alfa_{client_id}", "-c", sql])
    assert done.returncode == 0, done.stderr
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_an_ended_term_blocks_and_a_later_date_unblocks(lab: Lab, engine: str) -> None:
    name, host = f"term-{engine}", lab.hosts[engine]
    client_id, operation_id = await lab.system.create(name, lab.servers[engine])
    await lab.system.ended(operation_id, expect="ok")
    domain = (await lab.system.client(client_id))["domain"]
    for _ in range(2):
        await set_date(lab, client_id, "2020-02-29")
        page = await visit(host, domain)
        assert (page.status_code, page.headers["retry-after"]) == (503, "86400")
        assert "Срок использования истёк" in page.text
        client = await lab.system.client(client_id)
        assert (client["status"], client["blocked"], client["available"]) == ("expired", True, True)
        told = settings(host, engine, client_id)
        assert (told["blocked"], told["expire_date"]) == ("1", "2020-02-29")
        await set_date(lab, client_id, None)
        assert (await visit(host, domain)).status_code == 200
        told = settings(host, engine, client_id)
        assert (told["blocked"], told["expire_date"]) == ("0", None)
    assert (await lab.system.client(client_id))["status"] == "active"
    assert host.exec(["test", "-e", f"/srv/alfa/pages/clients/{name}.html"]).returncode == 1
