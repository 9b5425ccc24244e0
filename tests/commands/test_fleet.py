"""Commands on all clients of a server: one fails, workers die, and images are pruned."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.cloud import Cloud

CLIENTS = 4


@pytest.fixture(scope="module")
async def client_ids(cloud: Cloud) -> list[str]:
    """Clients that are alive."""
    worker = cloud.start_worker()
    made = [await cloud.system.create(f"lab-{n}", cloud.server_id) for n in range(CLIENTS)]
    for _, operation_id in made:
        await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    return [client_id for client_id, _ in made]


@pytest.fixture(autouse=True)
def no_worker_left(cloud: Cloud) -> Iterator[None]:
    """A worker of one test must not take the next one's work."""
    yield
    for process in cloud.workers:
        cloud.system.end(process, signal.SIGKILL)


async def ask(cloud: Cloud, path: str) -> str:
    """The id of a command's operation."""
    return str((await cloud.system.call("POST", path, status=202))["data"]["id"])


async def run(cloud: Cloud, path: str, expect: str = "ok") -> Any:
    """A command on the server, to its end."""
    return await cloud.system.ended(await ask(cloud, path), expect=expect)


def states(ended: Any) -> dict[str, str]:
    """The state of each target."""
    return {row["name"]: row["state"] for row in ended["result"]["rows"]}


@pytest.mark.usefixtures("worker")
async def test_one_that_fails_is_alone_and_is_done_again_alone(cloud: Cloud, client_ids: list[str]) -> None:
    path = f"/server/{cloud.server_id}/maintain_enable?page_text=До 18:00"
    cloud.practice.fault("alfa-vhost .*/clients/lab-3/vhost", action="fail", phase="before", stderr="no")
    operation_id = await ask(cloud, path)
    ended = await cloud.system.ended(operation_id, expect="error")
    assert Counter(states(ended).values()) == {"ok": CLIENTS - 1, "error": 1}
    assert (ended["error"]["code"], ended["error"]["step"]) == ("some_children_failed", "lab-3")
    (row,) = [row for row in ended["result"]["rows"] if row["state"] == "error"]
    assert (row["client_id"], row["error"]["step"]) == (client_ids[3], "Virtual host lab-3.practice.test")
    lines = [line["text"] for line in await cloud.system.log(f"/operations/{operation_id}/log")]
    assert any(line.startswith("lab-3: error in “Virtual host lab-3.practice.test”: ") for line in lines)
    await cloud.assert_sound(operation_id, ended)
    assert [(await cloud.system.client(id_))["maintenance"] for id_ in client_ids] == [n != 3 for n in range(CLIENTS)]
    cloud.practice.clear_faults()
    again = await cloud.system.call("POST", f"/operations/{operation_id}/retry?wait_s=60", status=200)
    assert states(again["data"]["attributes"]) == {"lab-3": "ok"}
    assert states(await run(cloud, f"/server/{cloud.server_id}/maintain_disable")) == {
        f"lab-{n}": "ok" for n in range(CLIENTS)
    }


async def test_killed_workers_repeat_nothing_that_was_done(cloud: Cloud, client_ids: list[str]) -> None:
    """Workers die one after the other, at once and half-way through a client; the last one ends it."""
    cloud.practice.fault("artisan migrate", "slow", seconds=0.3)
    before = migrations(cloud)
    operation_id = await ask(cloud, f"/server/{cloud.server_id}/migrate_all?max_parallel=2")
    for failpoint in ("migrate_client.migrate_data:effect:kill", "migrate_client.show_page:after:kill", ""):
        worker = cloud.start_worker(failpoint)
        if failpoint:
            await asyncio.to_thread(worker.wait, 60)
            continue
        while (await progress(cloud, operation_id)) < 0.5:
            await asyncio.sleep(0.05)
        worker.kill()
        worker.wait()
    cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="ok", within_s=90)
    assert set(states(ended).values()) == {"ok"}
    runs = migrations(cloud)
    assert {name: runs[name] - before[name] for name in runs} == {f"lab-{n}": 1 for n in range(CLIENTS)}
    children = (await cloud.system.call("GET", f"/operations?filter[parent]={operation_id}"))["data"]
    assert len(children) == CLIENTS
    await cloud.assert_sound(operation_id, ended)


def migrations(cloud: Cloud) -> Counter[str]:
    """How often each client's database was migrated."""
    found = [one.argv for one in cloud.practice.commands("docker", kind="stand_in") if "migrate" in one.argv]
    names = [f"lab-{n}" for n in range(CLIENTS)]
    return Counter(name for argv in found for name in names if f"--project-name=alfa-{name}" in argv)


async def progress(cloud: Cloud, operation_id: str) -> float:
    """How far an operation is."""
    found = await cloud.system.call("GET", f"/operations/{operation_id}")
    return float(found["data"]["attributes"]["progress"])


async def test_a_cancel_lets_what_runs_end(cloud: Cloud, client_ids: list[str]) -> None:
    cloud.practice.fault("psql.*--dbname=alfa_", action="slow", seconds=1)
    operation_id = await ask(cloud, f"/server/{cloud.server_id}/maintain_enable?max_parallel=2")
    cloud.start_worker()
    while not [row for row in await rows(cloud, operation_id) if row["state"] == "running"]:
        await asyncio.sleep(0.02)
    await cloud.system.call("POST", f"/operations/{operation_id}/cancel", status=202)
    ended = await cloud.system.ended(operation_id, expect="error")
    assert (ended["state"], ended["error"]["code"]) == ("cancelled", "cancelled")
    found = Counter(states(ended).values())
    assert set(found) == {"ok", "cancelled"}
    assert found["ok"] <= 2
    shown = [(await cloud.system.client(id_))["maintenance"] for id_ in client_ids]
    assert shown == [row["state"] == "ok" for row in ended["result"]["rows"]]
    cloud.practice.clear_faults()
    again = await cloud.system.call("POST", f"/operations/{operation_id}/retry?wait_s=60", status=200)
    assert len(states(again["data"]["attributes"])) == CLIENTS - found["ok"]
    await run(cloud, f"/server/{cloud.server_id}/maintain_disable")


async def rows(cloud: Cloud, operation_id: str) -> list[Any]:
    """The targets as they stand."""
    found = await cloud.system.call("GET", f"/operations/{operation_id}")
    return list(found["data"]["attributes"]["result"]["rows"])


@pytest.mark.usefixtures("worker")
async def test_a_canary_that_fails_saves_the_rest(cloud: Cloud, client_ids: list[str]) -> None:
    cloud.practice.fault("alfa-vhost .*/clients/lab-0/vhost", action="fail", phase="before")
    ended = await run(cloud, f"/server/{cloud.server_id}/maintain_enable?canary_count=1", expect="error")
    assert Counter(states(ended).values()) == {"error": 1, "cancelled": CLIENTS - 1}
    assert not any([(await cloud.system.client(id_))["maintenance"] for id_ in client_ids])


@pytest.mark.usefixtures("worker")
async def test_another_image_for_all_and_everything_written_anew(cloud: Cloud, client_ids: list[str]) -> None:
    server = f"/server/{cloud.server_id}"
    cloud.practice.fault("--project-name=alfa-lab-3 .*up ", action="fail", phase="before", stderr="no")
    operation_id = await ask(cloud, f"{server}/switch_all?image_name=1.1.0-dev")
    ended = await cloud.system.ended(operation_id, expect="error")
    assert [name for name, state in states(ended).items() if state == "error"] == ["lab-3"]
    assert ended["result"]["migration_pending"] == [f"lab-{n}" for n in range(CLIENTS) if n != 3]
    cloud.practice.clear_faults()
    again = await cloud.system.call("POST", f"/operations/{operation_id}/retry?wait_s=60", status=200)
    assert states(again["data"]["attributes"]) == {"lab-3": "ok"}
    shown = [await cloud.system.client(client_id) for client_id in client_ids]
    assert {(client["version"], client["available"]) for client in shown} == {("1.1.0-dev", True)}
    await run(cloud, f"{server}/switch_all?image_name=dev&filter[q]=lab-1")
    build(cloud, "alfa:1.2.0-dev")
    before = cloud.count("up")
    ended = await run(cloud, f"{server}/deploy")
    assert [step["title"] for step in ended["steps"]] == ["practice", *(f"lab-{n}" for n in range(CLIENTS))]
    assert set(states(ended).values()) == {"ok"}
    starts = [step["started_at"] for step in ended["steps"][1:]] + [ended["finished_at"]]
    assert all(step["finished_at"] <= later for step, later in zip(ended["steps"], starts, strict=True))
    shown = [await cloud.system.client(client_id) for client_id in client_ids]
    assert [client["version"] for client in shown] == [f"1.{2 if n == 1 else 1}.0-dev" for n in range(CLIENTS)]
    assert cloud.count("up") == before + 1


async def test_a_restart_of_all_that_is_killed_at_the_end_of_a_client_repeats_nothing(
    cloud: Cloud, client_ids: list[str]
) -> None:
    """The former container is gone, and the client's row does not know yet."""
    before, ups = containers(cloud), cloud.count("up")
    dying = cloud.start_worker("deploy_client.retire_former:after:kill")
    operation_id = await ask(cloud, f"/server/{cloud.server_id}/deploy?restart_all=true")
    await asyncio.to_thread(dying.wait, 90)
    cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="ok", within_s=180)
    assert set(states(ended).values()) == {"ok"}
    after = containers(cloud)
    assert (len(after), after & before) == (CLIENTS, set())
    assert cloud.count("up") == ups + CLIENTS


def containers(cloud: Cloud) -> set[str]:
    """The ids of all containers."""
    return {json.loads(line)["ID"] for line in cloud.containers()}


@pytest.mark.usefixtures("worker")
async def test_pruning_leaves_what_is_needed(cloud: Cloud, client_ids: list[str]) -> None:
    for image in ("1.1.0-dev", "1.0.0-master"):
        path = f"/clients/{client_ids[0]}/switch/{image}?wait_s=60"
        assert (await cloud.system.call("POST", path, status=200))["data"]["attributes"]["completed"] == "ok"
    for number in range(3, 6):
        build(cloud, f"alfa:1.{number}.0-dev")
    build(cloud, "other:1.0.0-dev")
    build(cloud, "alfa:1.3.0-dev")
    listed = await cloud.system.call("GET", f"/servers/{cloud.server_id}/images")
    prunable = {image["attributes"]["tag"] for image in listed["data"] if image["attributes"]["prunable"]}
    assert "alfa:1.4.0-dev" in prunable
    ended = await run(cloud, f"/containers/prune?server_id={cloud.server_id}")
    (row,) = ended["result"]["rows"]
    assert set(row["result"]["removed"]) == prunable
    assert row["result"]["freed_bytes"] >= 0
    stay = {"alfa:1.0.0-master", "alfa:1.1.0-dev", "alfa:1.3.0-dev", "alfa:1.5.0-dev", "other:1.0.0-dev"}
    assert stay <= set(tags(cloud))
    assert not (prunable | {"<none>:<none>"}) & set(tags(cloud))
    listed = await cloud.system.call("GET", f"/servers/{cloud.server_id}/images")
    assert not [image for image in listed["data"] if image["attributes"]["prunable"]]
    again = await run(cloud, "/containers/prune")
    assert again["result"]["rows"][0]["result"]["removed"] == []


def build(cloud: Cloud, tag: str) -> None:
    """An image of branch dev; one that had the tag has none any more."""
    cloud.on_server("docker", "build", f"--tag={tag}", "--label=alfa.branch=dev", ".")


def tags(cloud: Cloud) -> list[str]:
    """The images on the server; one without a tag is `<none>:<none>`."""
    return cloud.on_server("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
