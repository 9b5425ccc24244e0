"""Workers die, stop and are told to stop, at every step of a creation."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.fixtures.cloud import Cloud, Kill, chain_id, chains, gone, kills_at

STEPS = (
    "check_place",
    "ensure_folder",
    "ensure_database",
    "ensure_compose_file",
    "ensure_container",
    "wait_healthy",
    "migrate",
    "set_owner",
    "ensure_cloud_settings",
    "ensure_virtual_host",
    "wait_answering",
)
WITHOUT_EFFECT = {"check_place", "wait_healthy", "wait_answering"}
"""Steps whose first look may find all well: then they have no effect of their own."""
KILLS = kills_at(STEPS, WITHOUT_EFFECT)


@pytest.fixture(autouse=True)
def no_worker_left(cloud: Cloud) -> Iterator[None]:
    """A worker of one test must not take the next one's work."""
    yield
    for process in cloud.workers:
        cloud.system.end(process, signal.SIGKILL)


@pytest.mark.parametrize("chain", chains(KILLS), ids=chain_id)
async def test_a_worker_killed_in_a_step_is_replaced(cloud: Cloud, chain: tuple[Kill, ...]) -> None:
    name = f"kill-{KILLS.index(chain[0])}"
    client_id, operation_id = await cloud.system.create(name, cloud.server_id)
    await cloud.kill_workers("create_client", chain, wait=True)
    successor = cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="ok", within_s=60)
    cloud.system.end(successor)
    assert ended["attempt"] == len(chain) + 1
    await cloud.assert_sound(operation_id, ended)
    assert cloud.count(f"alfa-{name}-app-a", "artisan", "migrate") == 1
    texts = [line["text"] for line in await cloud.system.log(f"/operations/{operation_id}/log")]
    assert len([text for text in texts if "create_users_table" in text]) == 1
    assert len(cloud.tenant_sql(f"SELECT datname FROM pg_database WHERE datname = 'alfa_{client_id}'")) == 1
    assert len([line for line in cloud.containers() if f"alfa-{name}-" in line]) == 1
    assert (await cloud.system.client(client_id))["available"] is True


async def test_a_stopped_worker_does_nothing_more_when_it_wakes(cloud: Cloud) -> None:
    """A zombie: its lease was taken over while it slept."""
    sleeper = cloud.start_worker("create_client.ensure_container:before:stop")
    _, operation_id = await cloud.system.create("zombie", cloud.server_id)
    while not sleeper.stopped():
        await asyncio.sleep(0.02)
    successor = cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="ok", within_s=60)
    runs = cloud.count("alfa-zombie-app-a", "artisan", "migrate")
    sleeper.send_signal(signal.SIGCONT)
    await asyncio.sleep(3)
    assert (await cloud.system.ended(operation_id))["attempt"] == ended["attempt"] == 2
    assert cloud.count("alfa-zombie-app-a", "artisan", "migrate") == runs == 1
    assert cloud.count("--project-name=alfa-zombie", "up") == 1
    await cloud.assert_sound(operation_id, ended)
    cloud.system.end(sleeper)
    cloud.system.end(successor)


async def test_a_worker_told_to_stop_hands_its_work_over(cloud: Cloud) -> None:
    cloud.practice.fault("artisan migrate", "slow", seconds=6)
    first = cloud.start_worker()
    _, operation_id = await cloud.system.create("handed-over", cloud.server_id)
    while True:
        found = (await cloud.system.call("GET", f"/operations/{operation_id}"))["data"]["attributes"]
        if found["step"] == "Migrate the database":
            break
        assert found["completed"] is None
    second = cloud.start_worker()
    first.send_signal(signal.SIGTERM)
    await gone(first)
    assert first.returncode == 0
    ended = await cloud.system.ended(operation_id, expect="ok", within_s=60)
    assert cloud.count("alfa-handed-over-app-a", "artisan", "migrate") == 1
    await cloud.assert_sound(operation_id, ended)
    cloud.system.end(second)


async def test_a_worker_killed_while_it_takes_back_is_replaced(cloud: Cloud) -> None:
    """The failure stands in the row before anything is taken back, so the successor goes on taking back."""
    cloud.practice.fault("artisan migrate", "fail", stderr="no")
    cloud.practice.fault(r"container rm", "slow", seconds=2)
    first = cloud.start_worker()
    client_id, operation_id = await cloud.system.create("undone", cloud.server_id)
    while cloud.sql(f"SELECT error IS NULL FROM operations WHERE id = '{operation_id}'") == "t":
        await asyncio.sleep(0.02)
    first.kill()
    first.wait()
    cloud.practice.clear_faults()
    second = cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="error", within_s=60)
    assert ended["error"]["step"] == "Migrate the database"
    assert cloud.residue("undone", client_id) == []
    await cloud.assert_sound(operation_id, ended)
    cloud.system.end(second)
