"""Commands on all clients of two real hosts at once; one client is broken, and alone in that."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.lab.conftest import Lab
from tests.lab.hosts import LabHost

OLD, NEW, BAD = "1.0.0-master", "1.1.0-dev", "8.8.8-badmigrate"


async def born(lab: Lab, prefix: str, count: int) -> dict[str, list[str]]:
    """The names of new clients on each host that are alive."""
    names = {engine: [f"{prefix}-{engine}-{n}" for n in range(count)] for engine in lab.servers}
    made = [await lab.system.create(name, lab.servers[engine], image=OLD) for engine in names for name in names[engine]]
    for _, operation_id in made:
        await lab.system.ended(operation_id, expect="ok", within_s=300)
    return names


async def on_all(lab: Lab, command: str, prefix: str, params: Mapping[str, str]) -> list[tuple[str, Any]]:
    """A command on the clients with this prefix of all hosts at once, to their ends."""
    asked = []
    for server_id in lab.servers.values():
        path = f"/server/{server_id}/{command}"
        given = {**params, "filter[q]": f"{prefix}-"}
        asked.append((await lab.system.call("POST", path, status=202, params=given))["data"]["id"])
    ended = await asyncio.gather(*(lab.system.ended(operation_id, within_s=600) for operation_id in asked))
    return list(zip(asked, ended, strict=True))


def rows(ended: Any) -> dict[str, Any]:
    """What became of each client."""
    return {row["name"]: row for row in ended["result"]["rows"]}


async def retry(lab: Lab, operation_id: str) -> Any:
    """A retry, to its end."""
    answer = await lab.system.call("POST", f"/operations/{operation_id}/retry", status=202)
    return await lab.system.ended(answer["data"]["id"], expect="ok", within_s=300)


async def versions(lab: Lab, prefix: str) -> Counter[tuple[str, bool, bool]]:
    """What the clients with this prefix run, whether that is healthy, and whether it waits for a migration."""
    query = f"/clients?filter[q]={prefix}-&page[size]=100"
    found = [one["attributes"] for one in (await lab.system.call("GET", query, status=200))["data"]]
    return Counter((one["version"], one["available"], one["migration_pending"]) for one in found)


def move(host: LabHost, name: str, *, away: bool) -> None:
    """A client's folder is not where it should be, or is again."""
    here, there = f"/srv/alfa/clients/{name}", f"/srv/alfa/{name}-away"
    assert host.exec(["mv", here, there] if away else ["mv", there, here]).returncode == 0


@pytest.mark.full
@pytest.mark.parametrize("count", [2, pytest.param(10, marks=pytest.mark.full)])
async def test_one_broken_client_is_alone_in_that(lab: Lab, count: int) -> None:
    prefix = f"fleet{count}"
    names = await born(lab, prefix, count)
    all_names = [name for found in names.values() for name in found]
    engine = list(names)[-1]
    broken, host = names[engine][0], lab.hosts[engine]
    await switch_all(lab, prefix, all_names, broken, host)
    await migrate_all(lab, prefix, all_names, broken)


async def switch_all(lab: Lab, prefix: str, names: list[str], broken: str, host: LabHost) -> None:
    """Every client gets the new image but the one whose folder is missing, which gets it later."""
    move(host, broken, away=True)
    found = await on_all(lab, "switch_all", prefix, {"image_name": NEW})
    states = {name: row["state"] for _, ended in found for name, row in rows(ended).items()}
    assert states == {name: "error" if name == broken else "ok" for name in names}
    ((failed_id, failed),) = [(id_, ended) for id_, ended in found if ended["completed"] == "error"]
    assert failed["error"]["code"] == "some_children_failed"
    assert broken in failed["error"]["message"]
    assert rows(failed)[broken]["error"]["code"] == "client_missing"
    move(host, broken, away=False)
    assert list(rows(await retry(lab, failed_id))) == [broken]
    assert await versions(lab, prefix) == {(NEW, True, True): len(names)}


async def migrate_all(lab: Lab, prefix: str, names: list[str], broken: str) -> None:
    """Every client is migrated but the one whose migration fails, which is migrated when it has a good image again."""
    (client,) = (await lab.system.call("GET", f"/clients?filter[q]={broken}", status=200))["data"]
    await switch(lab, client["id"], BAD)
    found = await on_all(lab, "migrate_all", prefix, {})
    states = {name: row["state"] for _, ended in found for name, row in rows(ended).items()}
    assert states == {name: "error" if name == broken else "ok" for name in names}
    ((failed_id, failed),) = [(id_, ended) for id_, ended in found if ended["completed"] == "error"]
    assert failed["result"]["migration_pending"] == [broken]
    log = [line["text"] for line in await lab.system.log(f"/operations/{failed_id}/log")]
    assert any(line.startswith(f"{broken}: error in “Migrate the database”: ") for line in log)
    await switch(lab, client["id"], NEW)
    assert list(rows(await retry(lab, failed_id))) == [broken]
    assert await versions(lab, prefix) == {(NEW, True, False): len(names)}


async def switch(lab: Lab, client_id: str, image: str) -> None:
    """One client runs from another image."""
    answer = await lab.system.call("POST", f"/clients/{client_id}/switch/{image}", status=202)
    await lab.system.ended(answer["data"]["id"], expect="ok", within_s=120)
