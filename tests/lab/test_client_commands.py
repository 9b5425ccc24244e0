"""Short commands of a client on real hosts: restart, pages, the owner's password."""

from __future__ import annotations

import pytest

from tests.lab.conftest import ON_MARIADB, Lab
from tests.lab.test_create import assert_login, get
from tests.lab.test_switch import BAD, NEW, born, run

UNUSED = "alfa:0.1.0-dev"
PASSWORD = "Другой пароль $(id) 'и' \"кавычки\" \\ 2"


@pytest.mark.parametrize("engine", ON_MARIADB)
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


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_maintenance_of_a_whole_server(lab: Lab, engine: str) -> None:
    host = lab.hosts[engine]
    _, client = await born(lab, engine, "whole")
    for word, status in (("maintain_enable", 503), ("maintain_disable", 200)):
        for _ in range(2):
            await run(lab, f"/servers/{lab.servers[engine]}/{word}")
        assert (await get(host, client["domain"])).status_code == status


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_a_prune_leaves_what_is_needed(lab: Lab, engine: str) -> None:
    """A client runs one of the branch's images, its newest two are kept, and what is left goes."""
    host = lab.hosts[engine]
    client_id, _ = await born(lab, engine, "prune")
    await run(lab, f"/clients/{client_id}/switch/{NEW}")
    before = await tags(lab, engine)
    host.exec(["docker", "image", "tag", f"alfa:{BAD}", UNUSED])
    assert UNUSED in await tags(lab, engine)
    for removed in ([UNUSED], []):
        ended = await run(lab, "/containers/prune", server_id=lab.servers[engine])
        assert ended["result"]["rows"][0]["result"]["removed"] == removed
        assert await tags(lab, engine) == before


async def tags(lab: Lab, engine: str) -> set[str]:
    """The app's images on a host, as the API sees them."""
    images = await lab.system.call("GET", f"/servers/{lab.servers[engine]}/images", status=200)
    return {one["attributes"]["tag"] for one in images["data"]}
