"""The server fails: commands, connections, floods of output."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.cloud import Cloud
from tests.processes import Process

FAILURES = [
    # match, the step's title, the error's code
    (r"docker version", "Check the server", "docker_unavailable"),
    (r"install .*clients/", "Folder", "command_failed"),
    (r"^(?:\S*/)?psql.*--dbname=postgres", "Check the server", "command_failed"),
    (r"docker compose .* up", "Container", "command_failed"),
    (r"artisan migrate", "Migrate", "command_failed"),
    (r"artisan owner:password", "Administrator", "command_failed"),
    (r"psql.*--dbname=alfa_", "Settings", "command_failed"),
    (r"nginx -s reload", "Virtual host", "command_failed"),
]


@pytest.fixture(autouse=True)
def running(cloud: Cloud) -> Iterator[Process]:
    """A worker for each test."""
    process = cloud.start_worker()
    yield process
    cloud.system.end(process)


@pytest.mark.parametrize(("match", "title", "code"), FAILURES)
async def test_a_step_that_fails_leaves_nothing_and_can_be_retried(
    cloud: Cloud, match: str, title: str, code: str
) -> None:
    name = f"fail-{FAILURES.index((match, title, code))}"
    cloud.practice.fault(match, "fail", stderr="no room on the device")
    client_id, operation_id = await cloud.system.create(name, cloud.server_id)
    ended = await cloud.system.ended(operation_id, expect="error")
    assert ended["error"]["code"] == code
    assert ended["error"]["step"].startswith(title)
    assert "retry" in ended["error"]["message"]
    assert cloud.residue(name, client_id) == []
    assert (await cloud.system.client(client_id))["status"] == "failed"
    cloud.practice.clear_faults()
    before = await cloud.system.log(f"/clients/{client_id}/create_log")
    again = await cloud.system.call("POST", f"/operations/{operation_id}/retry", status=202)
    await cloud.system.ended(again["data"]["id"], expect="ok")
    lines = await cloud.system.log(f"/clients/{client_id}/create_log")
    assert lines[: len(before)] == before
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert (await cloud.system.client(client_id))["status"] == "active"


async def test_a_cut_connection_is_taken_up_again(cloud: Cloud) -> None:
    """The migration runs on while nobody listens; its output comes once, whole, and its own status counts."""
    cloud.practice.fault("artisan migrate", "slow", seconds=4)
    _, operation_id = await cloud.system.create("cut", cloud.server_id)
    for _ in range(3):
        await asyncio.sleep(1)
        await asyncio.to_thread(cloud.practice.cut_connections)
    ended = await cloud.system.ended(operation_id, expect="ok")
    assert cloud.count("alfa-cut-app-a", "artisan", "migrate") == 1
    texts = [line["text"] for line in await cloud.system.log(f"/operations/{operation_id}/log")]
    assert len([text for text in texts if "create_users_table" in text]) == 1
    await cloud.assert_sound(operation_id, ended)


def peak_rss_mb(process: Process) -> float:
    """The most memory that a process has held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


async def test_a_million_lines_at_once(cloud: Cloud, running: Process) -> None:
    cloud.practice.fault("alfa-flood-app-a .*artisan migrate", "flood", phase="after", exit_status=0, lines=1_000_000)
    _, operation_id = await cloud.system.create("flood", cloud.server_id)
    _, other_id = await cloud.system.create("beside-the-flood", cloud.server_id)
    other = await cloud.system.ended(other_id, expect="ok", within_s=60)
    ended = await cloud.system.ended(operation_id, expect="ok", within_s=120)
    texts = [line["text"] for line in await cloud.system.log(f"/operations/{operation_id}/log")]
    assert len(texts) <= 100_000
    assert len([text for text in texts if "create_users_table" in text]) == 1
    left_out = sum(int(text.split()[0]) for text in texts if text.endswith("lines were left out here."))
    assert left_out + len([text for text in texts if text.startswith("the quick brown fox")]) >= 1_000_000
    assert left_out < 1_000_000
    await cloud.assert_sound(operation_id, ended)
    assert other["attempt"] == 1
    assert peak_rss_mb(running) < 300


async def test_garbage_is_shown_as_text(cloud: Cloud) -> None:
    cloud.practice.fault("artisan migrate", "garbage", phase="after", exit_status=0, lines=200)
    _, operation_id = await cloud.system.create("garbage", cloud.server_id)
    await cloud.system.ended(operation_id, expect="ok")
    text = json.dumps(await cloud.system.log(f"/operations/{operation_id}/log"))
    assert "\\u0000" not in text
    assert "\\u001b" not in text


async def test_a_creation_is_cancelled_half_way(cloud: Cloud) -> None:
    cloud.practice.fault(r"curl .*/up", "fail", exit_status=7)
    client_id, operation_id = await cloud.system.create("cancelled", cloud.server_id)
    while (await cloud.system.call("GET", f"/operations/{operation_id}"))["data"]["attributes"]["progress"] < 0.4:
        await asyncio.sleep(0.05)
    await cloud.system.call("POST", f"/operations/{operation_id}/cancel", status=202)
    ended = await cloud.system.ended(operation_id, expect="error")
    assert (ended["state"], ended["error"]["code"]) == ("cancelled", "cancelled")
    assert cloud.residue("cancelled", client_id) == []
    deletion = await cloud.system.call("DELETE", f"/clients/{client_id}", status=202)
    await cloud.system.ended(deletion["data"]["id"], expect="ok")
    await cloud.system.call("GET", f"/clients/{client_id}", status=404)


async def test_what_is_not_ours_is_left_alone(cloud: Cloud) -> None:
    folder = Path(cloud.practice.layout.root) / "clients" / "foreign"
    folder.mkdir()
    (folder / "precious").write_text("data")
    _, operation_id = await cloud.system.create("foreign", cloud.server_id)
    ended = await cloud.system.ended(operation_id, expect="error")
    assert ended["error"]["code"] == "not_ours"
    assert (folder / "precious").read_text() == "data"


async def test_another_host_key_stops_everything(cloud: Cloud) -> None:
    """A swapped server gets no command; everything on it waits until its key is pinned."""
    key = cloud.sql("SELECT host_key FROM servers")
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"
    cloud.sql(f"UPDATE servers SET host_key = '{other}'")
    cloud.practice.cut_connections()
    cloud.practice.forget_commands()
    try:
        answer = await cloud.system.call("GET", f"/servers/{cloud.server_id}/images")
        assert answer["errors"][0]["status"] in ("502", "503")
        assert cloud.practice.commands(kind="ssh") == []
    finally:
        cloud.sql(f"UPDATE servers SET host_key = '{key}', host_key_changed = false, reachable = true")
