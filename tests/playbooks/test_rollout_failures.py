"""Roll-outs on a practice server that fail, whose taking back fails, too, or that are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from alfa_cloud.errors import AlfaCloudError, CommandFailedError, CommandTimeoutError
from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.client import WaitHealthy
from alfa_cloud.playbooks.steps.demo import Seed
from alfa_cloud.playbooks.steps.migration import DumpBehindPage, MigrateData, ShowPage, StartAgain, StopContainers
from alfa_cloud.playbooks.steps.rollout import PointProxy, RollOut, StartBeside
from alfa_cloud.playbooks.switch_client import roll_out
from alfa_cloud.remote import docker, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.session import SshHost
from tests.playbooks.conftest import carry_out
from tests.playbooks.specs import make_secrets
from tests.playbooks.test_rollout import OLD, Client, client

__all__ = ["client"]


def place(playbook: Playbook, kind: type[Step]) -> int:
    """The position of the first step of a kind."""
    return next(n for n, step in enumerate(playbook.steps) if isinstance(step, kind))


async def undo_all(steps: Sequence[Step], host: SshHost) -> list[str]:
    """Take steps back as the runner does; the names of those that could not be."""
    failed = []
    for step in reversed(steps):
        try:
            await step.undo(host)
        except AlfaCloudError:
            failed.append(type(step).__name__)
    return failed


@pytest.fixture(autouse=True)
def no_faults(client: Client) -> Any:
    yield
    client.site.practice.clear_faults()


async def test_a_container_that_nginx_points_to_is_not_removed(client: Client) -> None:
    """nginx refuses to point back, twice: what it points to serves on, and the result says so."""
    playbook, host = client.switch(), client.host()
    position = place(playbook, PointProxy)
    await carry_out(Playbook(playbook.steps[: position + 1]), host)
    client.site.practice.fault("^nginx -t", "fail")
    assert await undo_all(playbook.steps[: position + 2], host) == ["PointProxy", "StartBeside"]
    client.site.practice.clear_faults()
    found = await client.state()
    assert (found["status"], client.lines.facts["slot"]) == (200, "b")
    assert found["a"] is not None
    assert await undo_all(playbook.steps[: position + 2], host) == []
    found = await client.state()
    assert (found["status"], found["b"], client.lines.facts["slot"]) == (200, None, "a")


async def test_what_points_back_late_is_removed(client: Client) -> None:
    """nginx refuses once, then it does as it is told."""
    playbook, host = client.switch(), client.host()
    position = place(playbook, PointProxy)
    await carry_out(Playbook(playbook.steps[: position + 1]), host)
    client.site.practice.fault("^nginx -t", "fail", times=1)
    assert await undo_all(playbook.steps[: position + 1], host) == ["PointProxy"]
    found = await client.state()
    assert (found["status"], found["b"], client.lines.facts["slot"]) == (200, None, "a")


async def test_clearing_the_place_beside_shows_no_page(client: Client) -> None:
    """What an earlier operation left beside is cleared before the page comes up, and nobody would take it down."""
    rollout = RollOut(client.spec, replace(client.spec, title="Другое имя"), make_secrets())
    left = roll_out(rollout, OLD, OLD)
    await carry_out(Playbook(left.steps[: place(left, StartBeside) + 1]), client.host())
    client.lines.facts.clear()
    playbook, host = client.switch_and_migrate(), client.host()
    position = place(playbook, ShowPage)
    assert "ClearBeside" in await carry_out(Playbook(playbook.steps[:position]), host)
    assert await client.visit() == 200
    assert await undo_all(playbook.steps[:position], host) == []
    assert (await client.visit(), client.lines.facts.get("page_shown")) == (200, None)


async def test_a_page_is_known_before_it_stands(client: Client) -> None:
    """The server may be lost before a look says that it stands."""
    playbook, host = client.switch_and_migrate(), client.host()
    position = place(playbook, ShowPage)
    await carry_out(Playbook(playbook.steps[:position]), host)
    await playbook.steps[position].apply(host)
    assert (await client.visit(), client.lines.facts["page_shown"]) == (503, True)
    assert await undo_all(playbook.steps[: position + 1], host) == []
    assert client.lines.facts["page_shown"] is False


async def database_id(client: Client) -> str:
    """Another one where the database was made anew."""
    sql = f"SELECT oid FROM pg_database WHERE datname = '{client.spec.database}';"
    return (await client.host().run(postgresql.psql(sql, log=False))).text.strip()


async def test_a_migration_that_never_ran_brings_nothing_back(client: Client) -> None:
    before = await database_id(client)
    playbook, host = client.switch_and_migrate(), client.host()
    position = place(playbook, MigrateData)
    await carry_out(Playbook(playbook.steps[:position]), host)
    assert await undo_all(playbook.steps[: position + 1], host) == []
    assert (await database_id(client), await client.visit()) == (before, 200)
    assert not any("Restored" in note for note in client.lines.notes)


async def test_nothing_of_the_client_writes_from_the_dump_to_the_end(client: Client) -> None:
    """Neither while it is dumped and migrated, nor while it is restored; then its container runs again."""
    before = await client.state()
    playbook, host = client.switch_and_migrate(), client.host()
    position = place(playbook, MigrateData)
    await carry_out(Playbook(playbook.steps[: place(playbook, DumpBehindPage)]), host)
    assert await running(client) == []
    await carry_out(Playbook(playbook.steps[:position]), host)
    locker = await lock_samples(client, 4)
    migrating = asyncio.create_task(carry_out(Playbook(playbook.steps[: position + 1]), host))
    await until_running(client, [f"alfa-{client.spec.name}-alone"])
    assert not migrating.done()
    locker.cancel()
    await asyncio.gather(locker, migrating, return_exceptions=True)
    assert await running(client) == []
    await carry_out(Playbook(playbook.steps[: place(playbook, PointProxy) + 1]), host)
    assert await running(client) == [f"alfa-{client.spec.name}-app-b"]
    client.site.practice.forget_commands()
    client.site.practice.fault("^pg_restore", "slow", seconds=3)
    undoing = asyncio.create_task(undo_all(playbook.steps[: place(playbook, PointProxy) + 1], host))
    async with asyncio.timeout(60):
        while not client.site.practice.commands("pg_restore", kind="stand_in"):
            await asyncio.sleep(0.05)
    assert await running(client) == []
    assert await undoing == []
    assert await client.state() == before
    assert client.lines.facts["migrated"] is False


async def lock_samples(client: Client, seconds: int) -> asyncio.Task[Any]:
    """Hold a lock that a migration waits for."""
    sql = f"BEGIN; LOCK TABLE samples; SELECT pg_sleep({seconds}); COMMIT;"
    task = asyncio.create_task(client.host().run(postgresql.psql_as_client(client.spec, sql, timeout_s=300)))
    held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'samples'::regclass;"
    async with asyncio.timeout(60):
        while (await client.host().run(postgresql.psql_as_client(client.spec, held))).text.strip() == "0":
            await asyncio.sleep(0.05)
    return task


async def until_running(client: Client, names: list[str]) -> None:
    """Just these containers of the client run."""
    async with asyncio.timeout(60):
        while await running(client) != names:
            await asyncio.sleep(0.05)


async def running(client: Client) -> list[str]:
    """The client's containers that run."""
    rows = docker.parse_lines((await client.host().run(docker.list_running())).text)
    return sorted(row["Names"] for row in rows if row["Names"].startswith(f"alfa-{client.spec.name}-"))


async def test_a_migration_that_outlives_its_program_is_ended(client: Client) -> None:
    """Docker's own client is killed; what it had started in a container runs on, until it is taken back."""
    playbook, host = client.switch_and_migrate(), client.host()
    position = place(playbook, MigrateData)
    await carry_out(Playbook(playbook.steps[:position]), host)
    locker = await lock_samples(client, 120)
    migrating = asyncio.create_task(playbook.steps[position].apply(host))
    alone = [f"alfa-{client.spec.name}-alone"]
    await until_running(client, alone)
    newest = ("pkill", "-KILL", "--newest", "--full", "--", f"--name={alone[0][:-1]}[{alone[0][-1]}]")
    await host.run(Command(newest, sudo=True))
    with pytest.raises(CommandFailedError):
        await migrating
    assert await running(client) == alone
    assert await undo_all(playbook.steps[: position + 1], host) == []
    assert await running(client) == [f"alfa-{client.spec.name}-app-a"]
    assert await client.visit() == 200
    locker.cancel()
    await asyncio.gather(locker, return_exceptions=True)


async def test_a_seeder_that_took_too_long_does_not_go_on(client: Client) -> None:
    """Docker's client was ended with its time; what it had started in the container is ended with the container."""
    spec = replace(client.spec, app=replace(client.spec.app, demo_deadline_s=2))
    locker, before, host = await lock_samples(client, 300), await client.state(), client.host()
    with pytest.raises(CommandTimeoutError):
        await Seed(spec, "").apply(host)
    assert not locker.done()
    left = await host.run(Command(("pgrep", "--full", "--", f"{client.site.root}.* artisan db:see[d]")), check=False)
    assert left.text == ""
    await carry_out(Playbook([WaitHealthy(client.spec)]), host)
    assert await client.state() == before
    locker.cancel()
    await asyncio.gather(locker, return_exceptions=True)


async def test_where_the_data_cannot_be_brought_back_nothing_runs(client: Client) -> None:
    playbook, host = client.switch_and_migrate(), client.host()
    position = place(playbook, MigrateData)
    await carry_out(Playbook(playbook.steps[: position + 1]), host)
    client.site.practice.fault("^pg_restore.*--exit-on-error", "fail", phase="after", stderr="out of luck")
    assert await undo_all(playbook.steps[: position + 1], host) == ["MigrateData", "ShowPage"]
    assert (await running(client), await client.visit()) == ([], 503)
    assert client.lines.facts | {"page_shown": True, "migrated": False} == client.lines.facts


async def test_a_restart_that_was_killed_at_its_end_is_not_repeated(client: Client) -> None:
    """The former container is gone and the row still says that it is there: the new one is the wanted one."""

    def restart() -> Playbook:
        return roll_out(RollOut(client.spec, client.spec, make_secrets(), restart=True), OLD, OLD)

    playbook, host = restart(), client.host()
    await carry_out(Playbook(playbook.steps[:-1]), host)
    before = await client.state()
    assert (before["a"], before["status"]) == (None, 200)
    assert await carry_out(restart(), host) == ["EnsureServices"]
    after = await client.state()
    assert (after["b"], after["a"], client.lines.facts["slot"]) == (before["b"], None, "b")


async def test_a_container_in_place_is_stopped_and_started(client: Client) -> None:
    rollout, host = RollOut(client.spec, client.spec, make_secrets(), in_place=True), client.host()
    steps = [StopContainers(rollout), StartAgain(rollout)]
    assert await carry_out(Playbook(steps), host) == ["StopContainers", "StartAgain"]
    assert await running(client) == [client.spec.container]
