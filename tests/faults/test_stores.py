"""Redis and PostgreSQL go away, come back, and forget."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.fixtures.cloud import Cloud
from tests.processes import Process


@pytest.fixture(autouse=True)
def running(cloud: Cloud) -> Iterator[Process]:
    """A worker for each test."""
    process = cloud.start_worker()
    yield process
    cloud.system.end(process)


async def queue_up(cloud: Cloud, number: int, prefix: str) -> list[str]:
    """So many operations, waiting behind each other: pages of a client that is alive."""
    client_id, operation_id = await cloud.system.create(prefix, cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    made = []
    for n in range(number):
        path = f"/clients/{client_id}/maintain_enable?page_text={n}"
        made.append((await cloud.system.call("POST", path, status=202))["data"]["id"])
    assert len(set(made)) == number
    return made


async def test_redis_flushed_with_fifty_operations_queued(cloud: Cloud) -> None:
    made = await queue_up(cloud, 50, "flushed")
    cloud.redis.flush()
    for operation_id in made:
        await cloud.system.ended(operation_id, expect="ok", within_s=180)
    order = cloud.sql(
        "SELECT string_agg(id::text, ' ' ORDER BY started_at) FROM operations WHERE kind = 'enable_maintenance'"
    )
    assert [one for one in order.split() if one in set(made)] == made


async def test_redis_restarts_while_operations_run(cloud: Cloud) -> None:
    cloud.practice.fault("artisan migrate", "slow", seconds=5)
    _, operation_id = await cloud.system.create("redis-restart", cloud.server_id)
    while (await cloud.system.call("GET", f"/operations/{operation_id}"))["data"]["attributes"]["state"] == "queued":
        await asyncio.sleep(0.05)
    await asyncio.to_thread(cloud.redis.restart)
    ended = await cloud.system.ended(operation_id, expect="ok")
    assert ended["attempt"] == 1
    _, after_id = await cloud.system.create("after-redis-restart", cloud.server_id)
    await cloud.system.ended(after_id, expect="ok", within_s=40)


async def test_operations_are_accepted_while_redis_is_away(cloud: Cloud) -> None:
    await asyncio.to_thread(cloud.redis.kill)
    try:
        _, operation_id = await cloud.system.create("without-redis", cloud.server_id)
        found = await cloud.system.call("GET", f"/operations/{operation_id}", status=200)
        assert found["data"]["attributes"]["state"] == "queued"
        assert (await cloud.system.http.get("/readyz")).status_code == 503
    finally:
        await asyncio.to_thread(cloud.redis.start)
    await cloud.system.ended(operation_id, expect="ok", within_s=60)


async def test_postgres_restarts_while_operations_run(cloud: Cloud) -> None:
    made = [await cloud.system.create(f"monkey-{n}", cloud.server_id) for n in range(4)]
    for _ in range(3):
        await asyncio.sleep(1.2)
        await asyncio.to_thread(cloud.postgres.restart)
    for client_id, operation_id in made:
        while True:
            answer = await cloud.system.http.get(f"/operations/{operation_id}")
            if answer.status_code == 200:
                break
            assert answer.status_code == 503
            assert answer.headers["Retry-After"]
            await asyncio.sleep(0.2)
        ended = await cloud.system.ended(operation_id, expect="ok", within_s=120)
        await cloud.assert_sound(operation_id, ended)
        texts = [line["text"] for line in await cloud.system.log(f"/operations/{operation_id}/log")]
        assert len([text for text in texts if "create_users_table" in text]) == 1
        assert (await cloud.system.client(client_id))["status"] == "active"
