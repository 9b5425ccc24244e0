"""Back-ups, restores and deletions meet dead workers, cut connections and failing commands: no data is ever lost."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.cloud import FULL, Cloud, Kill, Stroke, chain_id, chains, kills_at, strokes
from tests.system import free_port

NAME = "keeper"
TEXT = "письмо"
BACK_UP = (
    "check_ownership",
    "check_dump_space",
    "drop_on_failure",
    "ensure_dump",
    "ensure_files_archive",
    "seal_backup",
)
RESTORE_BACKUP = (
    "check_space", "fetch_backup", "show_page", "wait_quiet", "stop_client", "ensure_dump", "ensure_files_archive",
    "seal_backup", "replace_data", "ensure_compose_file", "migrate_alone", "ensure_container", "wait_healthy",
    "ensure_cloud_settings", "wait_answering", "lift_page",
)  # fmt: skip
DELETE = (
    "check_ownership", "check_dump_space", "show_page", "wait_quiet", "stop_client", "ensure_dump",
    "ensure_files_archive", "seal_backup", "remove_virtual_host", "remove_certificates", "remove_container",
    "remove_database", "remove_folder",
)  # fmt: skip
RESTORE = (
    "ensure_image", "check_place", "ensure_folder", "ensure_database", "ensure_compose_file", "ensure_cloud_settings",
    "fetch_backup", "replace_data", "ensure_container", "wait_healthy", "migrate", "ensure_virtual_host",
    "wait_answering",
)  # fmt: skip
LOOKS = re.compile("check|drop|fetch|wait|image|cloud_settings|compose_file|certificates|remove_container")
"""Steps whose first look may find all well: then they have no effect of their own."""


def deaths(steps: Sequence[str]) -> list[tuple[Kill, ...]]:
    """Of workers, in operations with these steps."""
    return chains(kills_at(steps, {step for step in steps if LOOKS.search(step)}))


@pytest.fixture(scope="module")
async def client_id(cloud: Cloud) -> str:
    """A client that is alive, with a file and a row."""
    worker = cloud.start_worker()
    client_id, operation_id = await cloud.system.create(NAME, cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    cloud.system.end(worker)
    file(cloud).parent.mkdir()
    file(cloud).write_text(TEXT)
    domain = (await cloud.system.client(client_id))["domain"]
    assert (await cloud.visit(domain, "/samples", json={"name": TEXT})).status_code == 201
    return client_id


@pytest.fixture(autouse=True)
def calm(cloud: Cloud, client_id: str) -> Iterator[None]:
    """Each test begins with a server that works, and no worker of another one."""
    yield
    for process in cloud.workers:
        cloud.system.end(process, signal.SIGKILL)
    cloud.practice.clear_faults()


def file(cloud: Cloud) -> Path:
    """The client's file."""
    return Path(cloud.practice.layout.root) / "clients" / NAME / "storage" / "a" / "file.txt"


def names(cloud: Cloud, client_id: str) -> list[str]:
    """The rows that the client put in."""
    psql = ("psql", "--no-psqlrc", "-At", "-d", f"alfa_{client_id}", "-c", "SELECT name FROM samples")
    return cloud.on_server("sudo", "-n", "-u", "postgres", "--", *psql).split()


def unfinished(cloud: Cloud) -> list[str]:
    """What half of a back-up or of a restore would leave."""
    found = Path(cloud.practice.layout.root).rglob("*")
    return [
        str(path) for path in found if path.name.endswith((".part", ".new")) or path.name in ("restored", "transfer")
    ]


async def backups(cloud: Cloud, client_id: str) -> list[str]:
    """The ids of the client's back-ups, the newest first."""
    found = await cloud.system.call("GET", f"/clients/{client_id}/backups?page[size]=100", status=200)
    return [one["id"] for one in found["data"]]


async def assert_alive(cloud: Cloud, client_id: str, operation_id: str, ended: Any) -> None:
    """The client serves, once, with all its data; nobody is in its way, and nothing is half made."""
    await cloud.assert_sound(operation_id, ended)
    client = await cloud.system.client(client_id)
    assert (client["status"], client["available"], client["maintenance"]) == ("active", True, False)
    assert (await cloud.visit(client["domain"])).status_code == 200
    assert len([line for line in cloud.containers() if f"alfa-{NAME}-" in line]) == 1
    assert (file(cloud).read_text(), names(cloud, client_id)) == (TEXT, [TEXT])
    assert unfinished(cloud) == []


async def ask(cloud: Cloud, path: str, method: str = "POST") -> str:
    """The id of a command's operation."""
    return str((await cloud.system.call(method, path, status=202))["data"]["id"])


async def outlive(cloud: Cloud, kind: str, chain: Sequence[Kill], operation_id: str) -> Any:
    """The end of an operation whose workers died."""
    await cloud.kill_workers(kind, chain)
    worker = cloud.start_worker()
    ended = await cloud.system.ended(operation_id, expect="ok", within_s=90)
    assert ended["attempt"] == len(chain) + 1
    cloud.system.end(worker)
    return ended


@pytest.mark.parametrize("chain", deaths(BACK_UP), ids=chain_id)
async def test_workers_killed_in_a_backup(cloud: Cloud, client_id: str, chain: tuple[Kill, ...]) -> None:
    before = await backups(cloud, client_id)
    operation_id = await ask(cloud, f"/clients/{client_id}/backups")
    ended = await outlive(cloud, "back_up_client", chain, operation_id)
    await assert_alive(cloud, client_id, operation_id, ended)
    assert (await backups(cloud, client_id))[1:] == before


@pytest.mark.parametrize("chain", deaths(RESTORE_BACKUP), ids=chain_id)
async def test_workers_killed_in_a_restore(cloud: Cloud, client_id: str, chain: tuple[Kill, ...]) -> None:
    backup_id = await a_backup(cloud, client_id)
    file(cloud).write_text("другое")
    operation_id = await ask(cloud, f"/clients/{client_id}/backups/{backup_id}/restore")
    ended = await outlive(cloud, "restore_backup", chain, operation_id)
    await assert_alive(cloud, client_id, operation_id, ended)


async def a_backup(cloud: Cloud, client_id: str) -> str:
    """The id of a new back-up."""
    worker = cloud.start_worker()
    await cloud.system.ended(await ask(cloud, f"/clients/{client_id}/backups"), expect="ok")
    cloud.system.end(worker)
    return (await backups(cloud, client_id))[0]


@pytest.mark.parametrize(
    ("going", "coming"), list(zip_longest(deaths(DELETE), deaths(RESTORE), fillvalue=())), ids=chain_id
)
async def test_workers_killed_in_a_deletion_and_in_the_way_back(
    cloud: Cloud, client_id: str, going: tuple[Kill, ...], coming: tuple[Kill, ...]
) -> None:
    operation_id = await ask(cloud, f"/clients/{client_id}", "DELETE")
    ended = await outlive(cloud, "delete_client", going, operation_id)
    await cloud.assert_sound(operation_id, ended)
    assert (await cloud.system.client(client_id))["status"] == "archived"
    assert cloud.residue(NAME, client_id) == []
    operation_id = await ask(cloud, f"/clients/{client_id}/restore")
    ended = await outlive(cloud, "restore_client", coming, operation_id)
    await assert_alive(cloud, client_id, operation_id, ended)


def at_every_step(steps: Sequence[str]) -> pytest.MarkDecorator:
    """One command of a step goes wrong, with a test for each of them; only in `make faults`."""
    marked = [pytest.param(one, marks=pytest.mark.full) for one in strokes(steps)]
    return pytest.mark.parametrize("stroke", marked, ids=str)


async def outlive_stroke(cloud: Cloud, client_id: str, kind: str, path: str, stroke: Stroke) -> None:
    """The client lives on whatever becomes of the operation; one that failed says why, and the next one succeeds."""
    operation_id = await ask(cloud, path)
    await cloud.strike(stroke, kind)
    ended = await cloud.system.ended(operation_id, within_s=90)
    await assert_alive(cloud, client_id, operation_id, ended)
    if ended["completed"] == "ok":
        return
    assert ended["error"]["message"]
    cloud.calm_down()
    operation_id = await ask(cloud, path)
    ended = await cloud.system.ended(operation_id, expect="ok", within_s=90)
    await assert_alive(cloud, client_id, operation_id, ended)


@at_every_step(BACK_UP)
async def test_a_command_of_a_backup_goes_wrong(cloud: Cloud, client_id: str, stroke: Stroke) -> None:
    before = await backups(cloud, client_id)
    await outlive_stroke(cloud, client_id, "back_up_client", f"/clients/{client_id}/backups", stroke)
    assert (await backups(cloud, client_id))[1:] == before


@at_every_step(RESTORE_BACKUP)
async def test_a_command_of_a_restore_goes_wrong(cloud: Cloud, client_id: str, stroke: Stroke) -> None:
    backup_id = await a_backup(cloud, client_id)
    path = f"/clients/{client_id}/backups/{backup_id}/restore"
    await outlive_stroke(cloud, client_id, "restore_backup", path, stroke)


@at_every_step(DELETE)
async def test_a_command_of_a_deletion_goes_wrong(cloud: Cloud, client_id: str, stroke: Stroke) -> None:
    operation_id = await ask(cloud, f"/clients/{client_id}", "DELETE")
    await cloud.strike(stroke, "delete_client")
    ended = await cloud.system.ended(operation_id, within_s=90)
    if ended["completed"] == "error":
        assert ended["error"]["message"]
        if (await cloud.system.client(client_id))["status"] != "deleting":
            await assert_alive(cloud, client_id, operation_id, ended)
        cloud.calm_down()
        await cloud.system.ended(await ask(cloud, f"/clients/{client_id}", "DELETE"), expect="ok")
    assert (await cloud.system.client(client_id))["status"] == "archived"
    assert cloud.residue(NAME, client_id) == []
    operation_id = await ask(cloud, f"/clients/{client_id}/restore")
    ended = await cloud.system.ended(operation_id, expect="ok")
    await assert_alive(cloud, client_id, operation_id, ended)


@at_every_step(RESTORE)
async def test_a_command_of_the_way_back_goes_wrong(cloud: Cloud, client_id: str, stroke: Stroke) -> None:
    worker = cloud.start_worker()
    await cloud.system.ended(await ask(cloud, f"/clients/{client_id}", "DELETE"), expect="ok")
    cloud.system.end(worker)
    path = f"/clients/{client_id}/restore"
    operation_id = await ask(cloud, path)
    await cloud.strike(stroke, "restore_client")
    ended = await cloud.system.ended(operation_id, within_s=90)
    if ended["completed"] == "error":
        assert ended["error"]["message"]
        assert (await cloud.system.client(client_id))["status"] == "archived"
        assert cloud.residue(NAME, client_id) == []
        cloud.calm_down()
        operation_id = await ask(cloud, path)
        ended = await cloud.system.ended(operation_id, expect="ok", within_s=90)
    await assert_alive(cloud, client_id, operation_id, ended)


FAULTS = [
    # path, what is struck
    ("backups", "pg_dump"),
    ("backups", "tar --create|tar -c"),
    ("restore", "pg_dump"),
    ("restore", "pg_restore"),
    ("restore", r"compose .* up"),
    ("backups", "sha256sum"),
    ("delete", "container stop"),
    ("backups", "df "),
    ("delete", "pg_dump"),
    ("restore", "tar --extract|tar -x"),
    ("delete", "tar --create|tar -c"),
]
ACTIONS = ("fail", "kill_connection")
MEETINGS = [
    (path, pattern, action)
    for number, (path, pattern) in enumerate(FAULTS)
    for action in (ACTIONS if FULL else ACTIONS[number % 2 :][:1])
    if (path, action) != ("delete", "kill_connection")
]


@pytest.mark.parametrize(("path", "pattern", "action"), MEETINGS[:: 1 if FULL else 5])
async def test_what_fails_before_anything_is_removed_is_taken_back(
    cloud: Cloud, client_id: str, path: str, pattern: str, action: str
) -> None:
    """A restore needs the same programs to take itself back: there the fault ends with its tries."""
    backup_id = await a_backup(cloud, client_id)
    before = await backups(cloud, client_id)
    method, route = {
        "backups": ("POST", "/backups"),
        "restore": ("POST", f"/backups/{backup_id}/restore"),
        "delete": ("DELETE", ""),
    }[path]
    times = {"fail": 1, "kill_connection": 4}[action] if path == "restore" else None
    cloud.practice.fault(pattern, action, stderr="no luck", times=times)
    cloud.start_worker()
    operation_id = await ask(cloud, f"/clients/{client_id}{route}", method)
    ended = await cloud.system.ended(operation_id, within_s=120)
    assert (ended["completed"], bool(ended["error"]["message"])) == ("error", True)
    cloud.practice.clear_faults()
    await assert_alive(cloud, client_id, operation_id, ended)
    assert await backups(cloud, client_id) == before


UNFINISHED = [
    ("nginx -s reload", "kill_connection"),
    ("container stop", "kill_connection"),
    ("container inspect .*app-b", "fail"),
    ("container inspect .*app-b", "kill_connection"),
    ("timeout .* 300 runuser .* psql", "fail"),
    ("it is left alone", "kill_connection"),
    ("it is left alone", "fail"),
]
"""What strikes the server away, or the client's removal half-way."""


@pytest.mark.parametrize(("pattern", "action"), UNFINISHED[:: 1 if FULL else 4])
async def test_a_client_that_is_not_gone_is_deleting_until_it_is(
    cloud: Cloud, client_id: str, pattern: str, action: str
) -> None:
    cloud.practice.fault(pattern, action, stderr="no luck")
    cloud.start_worker()
    operation_id = await ask(cloud, f"/clients/{client_id}", "DELETE")
    await cloud.system.ended(operation_id, expect="error", within_s=120)
    assert (await cloud.system.client(client_id))["status"] == "deleting"
    cloud.practice.clear_faults()
    await cloud.system.ended(await ask(cloud, f"/clients/{client_id}", "DELETE"), expect="ok")
    assert (await cloud.system.client(client_id))["status"] == "archived"
    assert cloud.residue(NAME, client_id) == []
    operation_id = await ask(cloud, f"/clients/{client_id}/restore")
    ended = await cloud.system.ended(operation_id, expect="ok")
    await assert_alive(cloud, client_id, operation_id, ended)


async def test_a_client_on_a_server_that_is_away_is_never_reported_as_gone(cloud: Cloud, client_id: str) -> None:
    port = cloud.sql(f"SELECT port FROM servers WHERE id = {cloud.server_id}")
    cloud.sql(f"UPDATE servers SET port = {free_port()} WHERE id = {cloud.server_id}")
    cloud.start_worker()
    operation_id = await ask(cloud, f"/clients/{client_id}", "DELETE")
    ended = await cloud.system.ended(operation_id, expect="error", within_s=120)
    assert ended["error"]["code"] == "server_unreachable"
    assert (await cloud.system.client(client_id))["status"] == "deleting"
    cloud.sql(f"UPDATE servers SET port = {port} WHERE id = {cloud.server_id}")
    await cloud.system.ended(await ask(cloud, f"/clients/{client_id}", "DELETE"), expect="ok")
    assert cloud.residue(NAME, client_id) == []
    operation_id = await ask(cloud, f"/clients/{client_id}/restore")
    ended = await cloud.system.ended(operation_id, expect="ok")
    await assert_alive(cloud, client_id, operation_id, ended)
