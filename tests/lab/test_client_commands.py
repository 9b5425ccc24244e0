"""Short commands of a client on real hosts: restart, pages, the owner's password."""

from __future__ import annotations

import pytest

from tests.lab.conftest import ENGINES, Lab
from tests.lab.test_create import assert_login, get
from tests.lab.test_switch import born

PASSWORD = "Другой пароль $(id) 'и' \"кавычки\" \\ 2"


@pytest.mark.parametrize("engine", ENGINES)
async def test_short_commands_and_their_repeats(lab: Lab, engine: str) -> None:
    system, host = lab.system, lab.hosts[engine]
    client_id, client = await born(lab, engine, "short")
    container = f"alfa-{client['name']}-app-a"

    async def twice(word: str) -> None:
        for _ in range(2):
            answer = await system.call("GET", f"/clients/{client_id}/{word}", status=202)
            await system.ended(answer["data"]["id"], expect="ok")

    await twice("reboot")
    assert (await get(host, client["domain"])).status_code == 200
    host.exec(["docker", "stop", container])
    page = await get(host, client["domain"])
    assert (page.status_code, page.headers["retry-after"]) == (503, "30")
    assert "временно недоступно" in page.text
    await twice("maintain_enable")
    page = await get(host, client["domain"])
    assert (page.status_code, page.headers["retry-after"]) == (503, "300")
    assert "Техническое обслуживание" in page.text
    await twice("reboot")
    assert (await get(host, client["domain"])).status_code == 503
    await twice("maintain_disable")
    assert (await get(host, client["domain"])).status_code == 200
    for _ in range(2):
        answer = await system.call(
            "POST", f"/clients/{client_id}/owner_password", status=202, json={"password": PASSWORD}
        )
        await system.ended(answer["data"]["id"], expect="ok")
    await assert_login(host, client["domain"], client["owner_login"], PASSWORD)
