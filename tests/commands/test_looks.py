"""What is looked at on a client's server: the log of its container, its users, and where its name leads."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from alfa_cloud.remote.names import Resolver, leads_to
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services.container_log import FOLLOWERS, Followers, Source, TooManyFollowersError, follow
from alfa_cloud.specs import Address, Secret
from tests.fixtures.cloud import Cloud

JSON = "application/vnd.api+json"


@pytest.fixture(scope="module")
def cloud_settings() -> dict[str, str]:
    """Users are counted, and names resolved, every second."""
    return {"ALFA_USERS_INTERVAL_S": "0.5", "ALFA_DNS_INTERVAL_S": "0.5"}


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create("looks", cloud.server_id, domain="localhost.localdomain")
    await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    return client_id


def print_in(cloud: Cloud, name: str, text: str) -> None:
    """A client's container prints this."""
    found = json.loads(cloud.on_server("docker", "container", "inspect", "--", name))[0]
    with Path(found["LogPath"]).open("a", encoding="utf-8") as log:
        log.write(text)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 20) -> None:
    """The condition holds, soon."""
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@asynccontextmanager
async def following(cloud: Cloud, client_id: str, **params: str) -> AsyncIterator[AsyncIterator[str]]:
    """The events of a container's log as they come."""
    path, headers = f"/clients/{client_id}/container_log", {"Accept": "text/event-stream"}
    async with cloud.system.http.stream("GET", path, headers=headers, params=params) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield answer.aiter_lines()


def followers() -> list[str]:
    """The programs on this machine that follow a container's log."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if {"--follow", "alfa-looks-app-a"} <= set(words):
            found.append(" ".join(words))
    return found


async def test_the_last_lines_of_a_container(cloud: Cloud, client_id: str) -> None:
    print_in(cloud, "alfa-looks-app-a", "первая\n\x1b[31mred\x1b[0m\x07\nlast\n")
    path = f"/clients/{client_id}/container_log"
    found = (await cloud.system.call("GET", f"{path}?tail_lines=3", status=200))["data"]
    assert (found["type"], found["id"]) == ("container_logs", client_id)
    assert [line["text"] for line in found["attributes"]["lines"]] == ["первая", "red", "last"]
    text = await cloud.system.http.get(path, params={"tail_lines": 2}, headers={"Accept": "text/plain"})
    assert text.text == "red\nlast\n"
    for wrong in ("0", "5001", "x"):
        await cloud.system.call("GET", f"{path}?tail_lines={wrong}", status=400)


async def test_what_a_container_prints_of_its_secrets_is_not_shown(cloud: Cloud, client_id: str) -> None:
    found = json.loads(cloud.on_server("docker", "container", "inspect", "--", "alfa-looks-app-a"))[0]
    values = dict(item.partition("=")[::2] for item in found["Config"]["Env"])
    secrets = [values["APP_KEY"], values["DB_PASSWORD"]]
    print_in(cloud, "alfa-looks-app-a", "".join(f"leak {secret} end\n" for secret in secrets))
    answer = await cloud.system.call("GET", f"/clients/{client_id}/container_log?tail_lines=2", status=200)
    assert [line["text"] for line in answer["data"]["attributes"]["lines"]] == ["leak *** end"] * 2


async def test_followed_live_and_nothing_is_left_behind(cloud: Cloud, client_id: str) -> None:
    async with following(cloud, client_id, tail_lines="1") as lines:
        seen: list[Any] = []
        for number in range(3):
            print_in(cloud, "alfa-looks-app-a", f"live {number}\n")
            async with asyncio.timeout(20):
                while f"live {number}" not in [one["text"] for one in seen]:
                    line = await anext(lines)
                    seen += [json.loads(line[6:])] if line.startswith("data: ") else []
        assert followers()

    async def gone() -> bool:
        return not followers()

    await until(gone)


async def test_so_many_may_follow_that_looks_find_a_session(cloud: Cloud, client_id: str) -> None:
    path, headers = f"/clients/{client_id}/container_log", {"Accept": "text/event-stream"}
    print_in(cloud, "alfa-looks-app-a", "begun\n")
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(following(cloud, client_id, tail_lines="1")) for _ in range(FOLLOWERS)
        ]
        for lines in readers:
            await anext(lines)
        refused = await cloud.system.http.get(path, headers=headers)
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (429, "too_many_followers")
        assert 0 < int(refused.headers["retry-after"]) <= 60
        await asyncio.gather(*(cloud.system.call("GET", path, status=200) for _ in range(4)))

    async def may_follow() -> bool:
        async with cloud.system.http.stream("GET", path, headers=headers) as answer:
            return answer.status_code == 200

    await until(may_follow)


async def test_those_who_come_at_once_are_counted_too() -> None:
    """A place is taken when the stream begins: whoever was let in beside the last one is told at its beginning."""
    followers, address = Followers(), Address(1, "192.0.2.1", 22, "www-data", "")
    source = Source(address, "alfa-x", Masker())
    with ExitStack() as stack:
        for _ in range(FOLLOWERS):
            stack.enter_context(followers.place(address))
        late = follow(SshPool(Secret("")), source, 1, followers)
        with pytest.raises(TooManyFollowersError):
            await anext(late)
        followers.check(Address(2, "192.0.2.2", 22, "www-data", ""))
    followers.check(address)


async def test_without_a_container_there_is_no_log(cloud: Cloud, client_id: str) -> None:
    cloud.practice.fault("docker.*container.*logs", action="fail", stderr="Error: No such container")
    refused = await cloud.system.call("GET", f"/clients/{client_id}/container_log", status=409)
    assert refused["errors"][0]["code"] == "no_container_log"
    assert "No such container" in refused["errors"][0]["detail"]
    cloud.practice.clear_faults()
    await cloud.system.call("GET", "/clients/999999/container_log", status=404)


@pytest.mark.usefixtures("worker")
async def test_users_are_counted_and_one_client_holds_up_no_other(cloud: Cloud, client_id: str) -> None:
    slow, operation_id = await cloud.system.create("slow", cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    for sql in (
        "ALTER TABLE users RENAME TO people",
        "CREATE VIEW users AS SELECT pg_sleep(60)::text; GRANT SELECT ON users TO PUBLIC",
    ):
        cloud.on_server("sudo", "-n", "-u", "postgres", "--", "psql", "-d", f"alfa_{slow}", "-c", sql)
    cloud.sql("UPDATE clients SET users_count = NULL, users_counted_at = NULL")

    async def counted() -> bool:
        return bool((await cloud.system.client(client_id))["users_count"] == 1)

    await until(counted)
    found = await cloud.system.client(slow)
    assert (found["users_count"], found["users_counted_at"]) == (None, None)
    assert (await cloud.system.client(client_id))["users_counted_at"] is not None


async def test_where_names_lead() -> None:
    async with Resolver() as resolver:
        found = await resolver.addresses("localhost")
        assert found is not None
        assert "127.0.0.1" in found
        assert await resolver.addresses("127.0.0.7") == frozenset({"127.0.0.7"})
        assert await resolver.addresses("x" * 64 + ".test") == frozenset()
    server = frozenset({"192.0.2.1"})
    assert leads_to(server, server)
    assert leads_to(frozenset({"192.0.2.1", "2001:db8::1"}), server)
    assert not leads_to(frozenset({"192.0.2.1", "192.0.2.2"}), server)
    assert not leads_to(frozenset({"2001:db8::1"}), server)
    assert not leads_to(frozenset(), server)


@pytest.mark.usefixtures("worker")
async def test_a_name_that_leads_to_the_server_is_known_to(cloud: Cloud, client_id: str) -> None:
    async with Resolver() as resolver:
        if await resolver.addresses("localhost.localdomain") != frozenset({"127.0.0.1"}):
            cloud.sql(f"UPDATE clients SET domain = 'localhost' WHERE id = {client_id}")

    async def known() -> bool:
        return (await cloud.system.client(client_id))["dns_ok"] is True

    await until(known)


async def test_a_server_that_is_away_is_said_to_be(cloud: Cloud, client_id: str) -> None:
    cloud.sql("UPDATE servers SET port = 1")
    try:
        for accept in (JSON, "text/plain", "text/event-stream"):
            path = f"/clients/{client_id}/container_log"
            answer: httpx.Response = await cloud.system.http.get(path, headers={"Accept": accept})
            assert answer.status_code == 503
            assert answer.json()["errors"][0]["code"] == "server_unavailable"
    finally:
        cloud.sql(f"UPDATE servers SET port = {cloud.practice.port}")
