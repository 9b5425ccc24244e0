"""Commands on real SSH servers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from alfa_cloud.errors import (
    AddressRefusedError,
    CommandFailedError,
    CommandTimeoutError,
    ConnectionLostError,
    HostKeyChangedError,
    HostUnreachableError,
    LeaseLostError,
    LoginRefusedError,
)
from alfa_cloud.remote import keys, process
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import CAPTURE_BYTES
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import Address, Layout, Secret, Stream
from tests.system import free_port

from .conftest import CLIENT_KEY, LOOPBACK, InProcess, Lines, Practice, new_pool


def sh(script: str, **options: object) -> Command:
    return replace(Command(("sh", "-c", script)), **options)  # type: ignore[arg-type]


async def test_streams_and_exit_status(practice: Practice) -> None:
    sink = Lines()
    result = await practice.host(sink).run(sh("echo out; echo err >&2; exit 3"), check=False)
    assert (result.exit_status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert (sink.of(Stream.STDOUT), sink.of(Stream.STDERR)) == (["out"], ["err"])


async def test_a_failure_shows_the_last_lines_masked(practice: Practice) -> None:
    host = practice.host(secrets=["hunter2hunter2"])
    with pytest.raises(CommandFailedError) as caught:
        await host.run(sh("seq 5 >&2; echo password hunter2hunter2 >&2; exit 4").quiet())
    assert caught.value.detail == "sh ended with exit status 4: 4 / 5 / password ***"
    assert caught.value.exit_status == 4
    assert caught.value.output == "4\n5\npassword ***"


async def test_quiet_commands_leave_no_lines(practice: Practice) -> None:
    sink = Lines()
    result = await practice.host(sink).run(sh("echo secret").quiet())
    assert result.text == "secret\n"
    assert sink.taken == []


async def test_death_by_a_signal_is_a_failure(practice: Practice) -> None:
    result = await practice.host().run(sh("kill -TERM $$"), check=False)
    assert result.exit_status == 143


async def test_sudo(practice: Practice) -> None:
    await practice.host().run(sh("true", sudo=True))
    assert (practice.server.root / "bin" / "sudo.log").read_text().startswith("-n -- timeout")


async def test_a_killed_connection_is_never_success(practice: Practice) -> None:
    sink = Lines()
    running = asyncio.create_task(practice.host(sink).run(sh("echo begun; sleep 60; echo never")))
    await sink.until("begun")
    await practice.server.cut()
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(running, 5)
    assert (await practice.host().run(sh("echo again"))).text == "again\n"


async def test_120_commands_at_once(practice: Practice) -> None:
    host = practice.host()
    results = await asyncio.gather(*(host.run(sh(f"echo {number}")) for number in range(120)))
    assert [result.text for result in results] == [f"{number}\n" for number in range(120)]


async def test_bytes_that_are_no_text_leave_the_connection_alone(practice: Practice) -> None:
    sink = Lines()
    host = practice.host(sink)
    other = asyncio.create_task(host.run(sh("sleep 0.3; echo fine")))
    assert (await host.run(sh(r"printf '\377\376\000\n'"))).stdout == b"\xff\xfe\0\n"
    assert (await other).text == "fine\n"
    assert sink.of(Stream.STDOUT) == ["\ufffd\ufffd", "fine"]


async def test_standard_input_arrives_whole(practice: Practice) -> None:
    data = bytes(range(256)) * 20_000
    result = await practice.host().run(Command(("sha256sum",), stdin=data))
    assert result.text.split()[0] == hashlib.sha256(data).hexdigest()
    assert (await practice.host().run(Command(("wc", "-c")))).text.strip() == "0"


async def test_a_large_standard_input_may_be_ignored(practice: Practice) -> None:
    result = await practice.host().run(Command(("echo", "done"), stdin=b"x" * 20_000_000))
    assert result.text == "done\n"
    assert (await practice.host().run(sh("echo fine"))).text == "fine\n"


async def test_large_output_is_captured_in_part(practice: Practice) -> None:
    sink = Lines()
    result = await practice.host(sink).run(sh("seq 500000; seq 500000 >&2"))
    expected = [str(number) for number in range(1, 500_001)]
    assert sink.of(Stream.STDOUT) == expected
    assert sink.of(Stream.STDERR) == expected
    assert len(result.stdout) == len(result.stderr) == CAPTURE_BYTES


async def test_the_server_ends_what_takes_too_long(practice: Practice) -> None:
    with pytest.raises(CommandTimeoutError):
        await practice.host().run(sh("sleep 30", timeout_s=0.3))


async def test_the_deadline_of_our_own(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DEADLINE_SLACK_S", -29.5)
    with pytest.raises(ConnectionLostError):
        await practice.host().run(sh("sleep 20", timeout_s=30))


async def test_a_daemon_that_keeps_the_output_open_is_not_waited_for(practice: Practice) -> None:
    if isinstance(practice.server, InProcess):
        pytest.skip("this server tells of the end only when the streams have ended")
    began = time.monotonic()
    result = await practice.host().run(sh("sleep 30 & echo started"))
    assert result.text == "started\n"
    assert time.monotonic() - began < 15


async def test_a_cancelled_call_returns_at_once(practice: Practice) -> None:
    sink = Lines()
    running = asyncio.create_task(practice.host(sink).run(sh("trap '' HUP TERM; echo begun; sleep 20")))
    await sink.until("begun")
    began = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - began < 15
    assert (await practice.host().run(sh("echo fine"))).text == "fine\n"


async def test_cancelled_opens_leave_room(practice: Practice) -> None:
    host = practice.host()
    for _ in range(30):
        running = asyncio.create_task(host.run(sh("sleep 1")))
        await asyncio.sleep(0.005)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    results = await asyncio.gather(*(host.run(sh("echo x")) for _ in range(20)))
    assert [result.text for result in results] == ["x\n"] * 20


async def test_more_sessions_than_the_server_allows(practice: Practice) -> None:
    # Programs of cancelled calls hold their sessions on the server until they end.
    host, sink = practice.host(), Lines()
    for _ in range(3):
        held = [asyncio.create_task(practice.host(sink).run(sh("echo begun; sleep 6"))) for _ in range(8)]
        while len(sink.taken) < 8:
            await asyncio.sleep(0.02)
        sink.taken.clear()
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
    results = await asyncio.gather(*(host.run(sh("echo x")) for _ in range(16)))
    assert [result.text for result in results] == ["x\n"] * 16


class Held(Lines):
    """A journal that takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    async def lines(self, *args: object, **more: object) -> None:
        await self.released.wait()
        await super().lines(*args, **more)  # type: ignore[arg-type]


async def test_what_was_printed_well_arrives_or_is_missed(practice: Practice, tmp_path: Path) -> None:
    """The command has ended with status 0, and its last lines wait for the journal when the connection goes.

    OpenSSH's server had not sent all of them by then.
    """
    sink, ended = Held(), tmp_path / "ended"
    running = asyncio.create_task(practice.host(sink).run(sh(f"yes | head -c 2150000; touch {ended}")))
    async with asyncio.timeout(20):
        while not ended.exists():
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    await practice.server.cut()
    await asyncio.sleep(0.5)
    sink.released.set()
    try:
        await asyncio.wait_for(running, 20)
    except ConnectionLostError:
        return
    assert len(sink.taken) == 1_075_000


async def test_a_slow_sink_slows_the_command(practice: Practice) -> None:
    sink = Held()
    running = asyncio.create_task(practice.host(sink).run(sh("yes | head -c 10000000; echo over")))
    await asyncio.sleep(0.5)
    assert not running.done()
    assert (await practice.host().run(sh("echo beside"))).text == "beside\n"
    sink.released.set()
    await running
    assert len(sink.taken) == 5_000_001


async def test_the_guard_stands_before_each_command(practice: Practice) -> None:
    def lost() -> None:
        raise LeaseLostError

    host = practice.host(guard=lost)
    marker = practice.server.root / "marker"
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: host.run(Command(("touch", str(marker)))),
        lambda: host.run(Command(("touch", str(marker)), detached="touch")),
        lambda: host.detached_status("touch"),
        lambda: host.stop_detached("touch"),
    ]
    for call in calls:
        with pytest.raises(LeaseLostError):
            await call()
    assert not marker.exists()


async def test_another_host_key_stops_everything(practice: Practice) -> None:
    host, marker = practice.host(), practice.server.root / "marker"
    await host.run(sh("true"))
    await practice.server.change_key()
    with pytest.raises(HostKeyChangedError) as caught:
        await host.run(Command(("touch", str(marker))))
    assert not marker.exists()
    pinned = keys.fingerprint(practice.server.address.host_key)
    address = practice.server.address
    shown = keys.fingerprint(await practice.pool.fetch_host_key(address.host, address.port))
    assert pinned in caught.value.detail
    assert shown in caught.value.detail
    assert pinned != shown


async def test_a_pinned_key_of_another_kind_is_a_changed_key(practice: Practice) -> None:
    other = keys.public_line(asyncssh.generate_private_key("ecdsa-sha2-nistp256"))
    with pytest.raises(HostKeyChangedError):
        await practice.pool.connect(replace(practice.server.address, host_key=other))


async def test_an_unknown_key_is_refused_once_for_all(practice: Practice) -> None:
    pool = SshPool(keys.generate_key()[0], allowed_networks=LOOPBACK)
    host = practice.host(pool=pool)
    done = await asyncio.gather(*(host.run(sh("true")) for _ in range(40)), return_exceptions=True)
    assert {type(error) for error in done} == {LoginRefusedError}
    await pool.close()


async def test_the_key_may_come_from_a_function(practice: Practice) -> None:
    async def give() -> Secret:
        return CLIENT_KEY[0]

    for source in (give, lambda: CLIENT_KEY[0]):
        pool = SshPool(source, allowed_networks=LOOPBACK)
        assert await pool.connect(practice.server.address) == "127.0.0.1"
        await pool.close()


async def test_a_dead_server_delays_nobody(practice: Practice) -> None:
    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    silent = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    pool = SshPool(CLIENT_KEY[0], allowed_networks=LOOPBACK, connect_timeout_s=4)
    dead = replace(practice.server.address, server_id=2, port=port)
    waiting = [asyncio.create_task(pool.connect(dead)) for _ in range(50)]
    began = time.monotonic()
    assert (await practice.host(pool=pool).run(sh("echo fine"))).text == "fine\n"
    assert not any(task.done() for task in waiting)
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert time.monotonic() - began < 15
    assert {type(error) for error in done} == {HostUnreachableError}
    assert {error.meta["reason"] for error in done if isinstance(error, HostUnreachableError)} == {"timeout"}
    await pool.close()
    silent.close()
    await asyncio.sleep(0.1)  # its streams close


async def test_errors_say_why_and_echo_nothing(practice: Practice) -> None:
    async def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 secret-banner of a mail server\r\n" * 3)
        writer.close()

    shouting = await asyncio.start_server(shout, "127.0.0.1", 0)
    pool = new_pool()
    for host, port, reason in (
        ("127.0.0.1", free_port(), "refused"),
        ("127.0.0.1", shouting.sockets[0].getsockname()[1], "protocol"),
        ("no-such-host.invalid", 22, "dns"),
        ("a..b", 22, "dns"),
        ("x" * 300, 22, "dns"),
    ):
        address = Address(9, host, port, "nobody", practice.server.address.host_key)
        for call in (pool.connect(address), pool.fetch_host_key(host, port)):
            with pytest.raises(HostUnreachableError) as caught:
                await call
            assert caught.value.meta["reason"] == reason
            assert "banner" not in caught.value.detail
    await pool.close()
    shouting.close()


async def test_an_address_that_is_not_allowed_sees_no_connection(practice: Practice) -> None:
    seen: list[object] = []
    listener = await asyncio.start_server(lambda *streams: seen.append(streams), "127.0.0.1", 0)
    pool = SshPool(CLIENT_KEY[0])
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f000001", "::ffff:127.0.0.1"):
        address = Address(9, host, listener.sockets[0].getsockname()[1], "nobody", practice.server.address.host_key)
        with pytest.raises(AddressRefusedError):
            await pool.connect(address)
        with pytest.raises(AddressRefusedError):
            await pool.fetch_host_key(host, address.port)
    assert seen == []
    await pool.close()
    listener.close()


async def test_first_contact(practice: Practice) -> None:
    address = practice.server.address
    assert await practice.pool.fetch_host_key(address.host, address.port) == address.host_key


async def test_a_new_login_ends_nothing_that_runs(practice: Practice) -> None:
    sink, release = Lines(), practice.server.root / "release"
    host = practice.host(sink)
    script = f"echo begun; until [ -e {release} ]; do sleep 0.1; done; echo over"
    running = asyncio.create_task(host.run(sh(script)))
    await sink.until("begun")
    await host.log_in_anew()
    assert practice.pool.connections == 0
    assert (await host.run(sh("echo anew"))).text == "anew\n"
    assert practice.pool.connections == 1
    release.touch()
    assert (await running).text == "begun\nover\n"


async def test_dropped_connections_are_made_anew(practice: Practice) -> None:
    sink = Lines()
    host = practice.host(sink)
    assert host.address == "127.0.0.1"
    running = asyncio.create_task(host.run(sh("echo begun; sleep 30")))
    await sink.until("begun")
    await practice.pool.drop(practice.server.address.server_id)
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(running, 5)
    assert (await host.run(sh("echo again"))).text == "again\n"


async def test_a_changed_address_lets_the_old_connection_finish(practice: Practice) -> None:
    sink = Lines()
    running = asyncio.create_task(practice.host(sink).run(sh("echo begun; sleep 0.5; echo over")))
    await sink.until("begun")
    renamed = replace(practice.server.address, host="localhost")
    other = SshHost(
        practice.pool,
        renamed,
        Layout(),
        sink=Lines(),
        operation_dir="/nowhere",
        fence=1,
        masker=Masker(),
        guard=lambda: None,
    )
    assert (await other.run(sh("echo new"))).text == "new\n"
    assert other.address == "127.0.0.1"
    assert (await running).text == "begun\nover\n"


async def test_notes_are_masked_and_clean(practice: Practice) -> None:
    sink = Lines()
    host = practice.host(sink, secrets=["hunter2hunter2"])
    await host.note("a hunter2hunter2 \x1b[1mb\nc")
    await host.warn("hunter2hunter2!")
    assert sink.of(Stream.SYSTEM) == ["a *** b", "c"]
    assert sink.warnings == ["***!"]
