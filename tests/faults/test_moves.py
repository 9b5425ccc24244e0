"""A move meets dead workers, cut connections and failing commands: never on both servers, never on none."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alfa_cloud.sandbox.practice import PracticeServer
from tests.fixtures.cloud import FULL, Cloud, Kill, Stroke, chain_id, chains, kills_at, strokes
from tests.fixtures.practice import NewPractice

NAME = "nomad"
STEPS = (
    "check_ownership", "check_database_space", "check_files_space", "ensure_image", "check_place", "ensure_folder",
    "ensure_database", "ensure_cloud_settings", "copy_files", "show_page", "wait_quiet", "stop_client",
    "copy_database", "send_difference", "verify_database", "verify_files", "ensure_compose_file", "ensure_container",
    "wait_healthy", "commit", "ensure_virtual_host", "forward", "wait_answering", "remove_page",
)  # fmt: skip
WITHOUT_EFFECT = {
    "check_ownership", "check_database_space", "check_files_space", "ensure_image", "check_place", "wait_quiet",
    "verify_database", "wait_healthy", "wait_answering", "ensure_database", "ensure_cloud_settings",
    "ensure_compose_file", "ensure_folder",
}  # fmt: skip
"""Steps that only look, or find on a way back what the way there has left."""
KILLS = kills_at(STEPS, WITHOUT_EFFECT)


@dataclass
class Two:
    """A client, and the two servers that it moves between."""

    cloud: Cloud
    servers: dict[str, PracticeServer]
    client_id: str
    domain: str

    @property
    def here(self) -> str:
        """The id of the server that the service's row says."""
        return self.cloud.sql(f"SELECT server_id FROM clients WHERE id = {self.client_id}")

    @property
    def there(self) -> str:
        """The other one's."""
        return next(server_id for server_id in self.servers if server_id != self.here)

    def storage(self, server_id: str) -> Path:
        return Path(self.servers[server_id].layout.root) / "clients" / NAME / "storage"

    def running(self, server_id: str) -> list[str]:
        """The client's containers on a server."""
        at = Cloud(self.cloud.system, self.servers[server_id], self.cloud.postgres, self.cloud.redis, "", server_id)
        return [line for line in at.containers() if f"alfa-{NAME}-" in line]

    async def ask(self, server_id: str) -> int:
        """What a visitor of a server gets."""
        return (await self.cloud.visit(self.domain, server=self.servers[server_id])).status_code

    async def start(self) -> str:
        """The id of the operation that moves the client to the other server."""
        path = f"/clients/{self.client_id}/move_to/{self.there}"
        return str((await self.cloud.system.call("POST", path, status=202))["data"]["id"])

    async def assert_sound(self, operation_id: str, ended: Any, *, at: str) -> None:
        """The client serves from one server, with all its files, and nobody is in its way."""
        await self.cloud.assert_sound(operation_id, ended)
        other = next(server_id for server_id in self.servers if server_id != at)
        assert self.here == at
        assert (len(self.running(at)), self.running(other)) == (1, [])
        assert await self.ask(at) == 200
        assert (self.storage(at) / "a" / "file.txt").read_text() == "письмо"
        client = await self.cloud.system.client(self.client_id)
        assert (client["status"], client["maintenance"], client["available"]) == ("active", False, True)
        assert not (self.storage(at).parent / "transfer").exists()


@pytest.fixture(scope="module")
async def two(cloud: Cloud, new_practice: NewPractice) -> AsyncIterator[Two]:
    """A client with a file, on the first of two practice servers."""
    key = (await cloud.system.http.get("/ssh_public_key", headers={"Accept": "text/plain"})).text
    with new_practice() as server:
        server.authorize(key)
        worker = cloud.start_worker()
        server_id = await cloud.system.register(
            name="other", host=server.host, port=server.port, username=server.username,
            database_engine="postgresql", base_domain="other.test", tls="none",
        )  # fmt: skip
        client_id, operation_id = await cloud.system.create(NAME, cloud.server_id)
        await cloud.system.ended(operation_id, expect="ok")
        cloud.system.end(worker)
        domain = (await cloud.system.client(client_id))["domain"]
        made = Two(cloud, {cloud.server_id: cloud.practice, server_id: server}, client_id, domain)
        (made.storage(cloud.server_id) / "a").mkdir()
        (made.storage(cloud.server_id) / "a" / "file.txt").write_text("письмо")
        yield made


@pytest.fixture(autouse=True)
def calm(cloud: Cloud, two: Two) -> Iterator[None]:
    """Each test begins with servers that work, and no worker of another one."""
    yield
    for process in cloud.workers:
        cloud.system.end(process, signal.SIGKILL)
    for server in two.servers.values():
        server.clear_faults()


async def test_workers_killed_where_nothing_is_yet(two: Two) -> None:
    """The first of the module: the target never had the client."""
    steps = ("ensure_folder", "ensure_database", "ensure_cloud_settings", "ensure_compose_file")
    await outlived(two, tuple((step, "effect") for step in steps))


@pytest.mark.parametrize("chain", chains(KILLS), ids=chain_id)
async def test_a_worker_killed_in_a_step_is_replaced(two: Two, chain: tuple[Kill, ...]) -> None:
    await outlived(two, chain)


async def outlived(two: Two, chain: tuple[Kill, ...]) -> None:
    """A move in which these workers die gets there."""
    target = two.there
    operation_id = await two.start()
    await two.cloud.kill_workers("move_client", chain)
    two.cloud.start_worker()
    ended = await two.cloud.system.ended(operation_id, expect="ok", within_s=90)
    assert ended["attempt"] == len(chain) + 1
    await two.assert_sound(operation_id, ended, at=target)


STROKES = strokes(STEPS)
SAMPLE = Stroke("copy_files", "kill_connection", "during", 1)


@pytest.mark.parametrize(
    "stroke", [one if one == SAMPLE else pytest.param(one, marks=pytest.mark.full) for one in STROKES], ids=str
)
async def test_a_command_goes_wrong(two: Two, stroke: Stroke) -> None:
    """On either server, at the same step: the client is on one of them, and on the other when it is asked for again."""
    source, target = two.here, two.there
    operation_id = await two.start()
    other = next(server for server in two.servers.values() if server is not two.cloud.practice)
    await two.cloud.strike(stroke, "move_client", other)
    ended = await two.cloud.system.ended(operation_id, within_s=90)
    for server in two.servers.values():
        server.clear_faults()
    if ended["completed"] == "error":
        assert ended["error"]["message"]
        if two.here == source:
            await asyncio.sleep(1.2)
            await two.assert_sound(operation_id, ended, at=source)
        two.cloud.calm_down()
        again = await two.cloud.system.call("POST", f"/operations/{operation_id}/retry", status=202)
        operation_id = again["data"]["id"]
        ended = await two.cloud.system.ended(operation_id, expect="ok", within_s=90)
    await two.assert_sound(operation_id, ended, at=target)


BEFORE = {
    "copying files": ("tar --create|tar -c", "there"),
    "making the database": ("CREATE DATABASE", "there"),
    "filling the database": ("pg_restore", "there"),
    "dumping": ("pg_dump", "here"),
    "starting": (r"compose .* up", "there"),
    "stopping": ("container stop", "here"),
}
"""What fails for good before the client is on its new server: there it is as if nothing had been."""
ACTIONS = ("fail", "kill_connection")
FAULTS = [(what, ACTIONS[number % 2]) for number, what in enumerate(BEFORE)]
if FULL:
    FAULTS = [(what, action) for what in BEFORE for action in ACTIONS]


@pytest.mark.parametrize(("what", "action"), FAULTS)
async def test_what_fails_before_the_commit_is_taken_back(two: Two, what: str, action: str) -> None:
    pattern, place = BEFORE[what]
    source, target = two.here, two.there
    operation_id = await _move_with(two, pattern, source if place == "here" else target, action)
    ended = await two.cloud.system.ended(operation_id, within_s=90)
    if ended["completed"] == "ok":  # the fault struck nothing that a move does so
        pytest.fail("the fault did not strike")
    for server in two.servers.values():
        server.clear_faults()
    await asyncio.sleep(1.2)
    await two.assert_sound(operation_id, ended, at=source)
    assert not two.storage(target).exists()


async def _move_with(two: Two, pattern: str, server_id: str, action: str) -> str:
    two.servers[server_id].fault(pattern, action, stderr="no luck")
    two.cloud.start_worker()
    return await two.start()


async def test_what_fails_after_the_commit_goes_forward(two: Two) -> None:
    target = two.there
    operation_id = await _move_with(two, "nginx -s reload", target, "fail")
    ended = await two.cloud.system.ended(operation_id, expect="error", within_s=90)
    assert two.here == target
    two.servers[target].clear_faults()
    again = await two.cloud.system.call("POST", f"/operations/{operation_id}/retry", status=202)
    ended = await two.cloud.system.ended(again["data"]["id"], expect="ok", within_s=90)
    await two.assert_sound(again["data"]["id"], ended, at=target)
