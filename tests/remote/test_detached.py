"""Commands that outlive connections and workers, on real SSH servers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, ConnectionLostError, LeaseLostError
from alfa_cloud.remote import detached
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.detached import Look, Started, State, parse_look
from alfa_cloud.remote.session import Begun
from alfa_cloud.specs import Stream

from .conftest import Lines, Practice, new_pool


def sh(script: str, *, name: str = "step", stdin: bytes = b"", timeout_s: float = 60, sudo: bool = False) -> Command:
    return Command(("sh", "-c", script), stdin=stdin, timeout_s=timeout_s, detached=name, sudo=sudo)


async def start(practice: Practice, command: Command, *, fence: int = 1) -> int:
    result = await practice.host().run(detached.start(practice.operation_dir, fence, command), check=False)
    return result.exit_status


async def gone(path: Path, *, there: bool = False) -> None:
    """Wait until a file is not there, or is."""
    async with asyncio.timeout(10):
        while path.exists() is not there:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("sudo", [False, True])
async def test_from_start_to_exit_status(practice: Practice, sudo: bool) -> None:
    sink = Lines()
    host = practice.host(sink)
    result = await host.run(sh("echo one; echo two >&2; printf three; exit 5", sudo=sudo), check=False)
    assert (result.exit_status, result.stdout) == (5, b"one\ntwo\nthree")
    assert sink.of(Stream.STDOUT) == ["one", "two", "three"]
    assert sink.checkpoints == {"step": 13}
    assert await host.detached_status("step") == 5
    assert await host.detached_status("another") is None


async def test_the_first_worker_asks_only_for_what_it_began(practice: Practice) -> None:
    await practice.host().run(sh("true", name="earlier"))
    begun = Begun(first=True)
    first, beside = practice.host(begun=begun), practice.host(begun=begun)
    assert await first.detached_status("earlier") is None, "it was not asked for"
    assert not await first.detached_began("earlier")
    running = asyncio.create_task(first.run(sh("sleep 30", name="mine"), check=False))
    await gone(practice.folder("mine/started"), there=True)
    assert await beside.detached_began("mine")
    await beside.stop_detached("mine")
    assert (await running).exit_status == 143
    assert await first.detached_status("mine") == 143


async def test_a_later_worker_asks_for_all(practice: Practice) -> None:
    await practice.host().run(sh("true", name="earlier"))
    assert await practice.host(begun=Begun(first=False)).detached_status("earlier") == 0


async def test_a_failure_and_a_timeout_are_told_as_of_any_command(practice: Practice) -> None:
    host = practice.host(secrets=["hunter2hunter2"])
    with pytest.raises(CommandFailedError) as caught:
        await host.run(sh("echo no hunter2hunter2; exit 7"))
    assert caught.value.detail == "sh ended with exit status 7: no ***"
    with pytest.raises(CommandTimeoutError):
        await host.run(sh("sleep 30", name="slow", timeout_s=0.3))
    assert await host.detached_status("slow") == 124


async def test_the_second_start_finds_it_held_then_done(practice: Practice) -> None:
    release = practice.server.root / "release"
    command = sh(f"echo run; while [ ! -e {release} ]; do sleep 0.05; done")
    assert await start(practice, command) == Started.NEW
    assert await start(practice, command) == Started.HELD
    release.touch()
    await gone(practice.folder("step") / "status", there=True)
    assert await start(practice, command) == Started.DONE
    assert (practice.folder("step") / "output").read_text() == "run\n"


async def test_a_later_fence_shuts_earlier_ones_out(practice: Practice) -> None:
    assert await start(practice, sh("true"), fence=3) == Started.NEW
    marker = practice.server.root / "marker"
    assert await start(practice, sh(f"touch {marker}", name="other"), fence=2) == Started.FENCED
    with pytest.raises(LeaseLostError):
        await practice.host(fence=2).run(sh(f"touch {marker}", name="other"))
    assert not marker.exists()
    assert await start(practice, sh("true", name="other"), fence=4) == Started.NEW
    assert (Path(practice.operation_dir) / "fence").read_text() == "4\n"


async def test_asking_for_a_running_command_shuts_the_earlier_worker_out_too(practice: Practice) -> None:
    assert await start(practice, sh("sleep 20"), fence=1) == Started.NEW
    assert await start(practice, sh("sleep 20"), fence=2) == Started.HELD
    assert await start(practice, sh("true", name="next"), fence=1) == Started.FENCED
    await practice.host().stop_detached("step")


async def test_40_starts_at_once_run_it_once(practice: Practice) -> None:
    command = sh("echo run; sleep 0.5", stdin=b"x" * 100_000)
    codes = await asyncio.gather(*(start(practice, command, fence=number % 4) for number in range(40)))
    assert codes.count(Started.NEW) == 1
    assert set(codes) <= {Started.NEW, Started.HELD, Started.DONE, Started.FENCED}
    assert (await practice.host(fence=9).run(command)).text == "run\n"


async def test_a_cut_connection_loses_and_repeats_nothing(practice: Practice) -> None:
    sink = Lines()
    script = "for i in $(seq 200); do echo line $i; printf half; sleep 0.01; echo -$i; done"
    running = asyncio.create_task(practice.host(sink).run(sh(script)))
    for number in (20, 80, 140):
        await sink.until(f"line {number}")
        await practice.server.cut()
    result = await running
    expected = [line for i in range(1, 201) for line in (f"line {i}", f"half-{i}")]
    assert sink.of(Stream.STDOUT) == expected
    assert result.text.splitlines() == expected


async def test_a_killed_worker_is_followed_by_another_without_gap_or_repeat(practice: Practice) -> None:
    sink = Lines()
    command = sh("for i in $(seq 100); do echo line $i; sleep 0.02; done; exit 3")
    for fence, line in ((1, "line 10"), (2, "line 50")):
        worker = asyncio.create_task(practice.host(sink, fence=fence).run(command))
        await sink.until(line)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    pool = new_pool()
    result = await practice.host(sink, fence=3, pool=pool).run(command, check=False)
    assert sink.of(Stream.STDOUT) == [f"line {i}" for i in range(1, 101)]
    assert result.exit_status == 3
    assert result.text.startswith("line 1\nline 2\n")
    again = await practice.host(sink, fence=3, pool=pool).run(command, check=False)
    assert again.exit_status == 3
    assert len(sink.taken) == 100
    await pool.close()


async def test_it_runs_on_where_no_connection_comes_back(practice: Practice) -> None:
    sink = Lines()
    marker = practice.server.root / "marker"
    running = asyncio.create_task(practice.host(sink).run(sh(f"echo begun; sleep 1.5; touch {marker}")))
    await sink.until("begun")
    await practice.server.stop()
    with pytest.raises(ConnectionLostError):
        await running
    await gone(marker, there=True)


async def test_a_command_killed_with_its_wrapper_is_started_again(practice: Practice) -> None:
    sink = Lines()
    first = practice.server.root / "first"
    command = sh(f"echo try; if [ ! -e {first} ]; then touch {first}; echo -n last words; sleep 30; fi; echo through")
    running = asyncio.create_task(practice.host(sink).run(command))
    await sink.until("try")
    await gone(first, there=True)
    await asyncio.sleep(0.2)
    kill_session(practice.folder("step"))
    result = await running
    assert result.text == "try\nthrough\n"
    note = "the earlier run of step ended without a status (the server restarted?); it is started again"
    assert [line for _, line in sink.taken] == ["try", "last words", note, "try", "through"]
    assert sink.checkpoints["step"] == len("try\nthrough\n")
    assert (Path(practice.operation_dir) / "step.died-1" / "output").read_text() == "try\nlast words"


async def test_where_only_the_wrapper_dies_the_command_is_not_doubled(practice: Practice) -> None:
    sink = Lines()
    running = asyncio.create_task(practice.host(sink).run(sh("echo $$; sleep 1; echo over")))
    await gone(practice.folder("step") / "started", there=True)
    await asyncio.sleep(0.2)
    os.kill(int((practice.folder("step") / "started").read_text().split()[0]), signal.SIGKILL)
    assert await start(practice, sh("echo double")) == Started.HELD
    await sink.until("over")
    await running  # without a status it counts as died, and is started again
    assert sink.of(Stream.STDOUT)[1] == "over"


async def test_what_dies_again_and_again_fails(practice: Practice) -> None:
    started = practice.folder("step") / "started"
    with pytest.raises(CommandFailedError, match="3 times"):
        await practice.host().run(sh(f"kill -9 $(cut -d' ' -f1 {started})"))


async def test_standard_input_arrives_whole_and_stays_nowhere(practice: Practice) -> None:
    secret = b"canary-4711\n" * 50_000
    held = practice.server.root / "held"
    command = sh(f"touch {held}; sleep 0.5; wc -c; rm {held}", stdin=secret)
    running = asyncio.create_task(practice.host().run(command))
    await gone(held, there=True)
    for path in Path(practice.operation_dir).rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes()
    assert (await running).text.strip() == str(len(secret))
    empty = await practice.host().run(sh("wc -c", name="empty"))
    assert empty.text.strip() == "0"


async def test_a_standard_input_cut_short_starts_nothing(practice: Practice) -> None:
    command = detached.start(practice.operation_dir, 1, sh("cat", stdin=b"x" * 1000))
    cut = Command(command.argv, stdin=b"x" * 999, log=False)
    assert (await practice.host().run(cut, check=False)).exit_status == Started.CUT
    assert not (practice.folder("step") / "started").exists()
    assert list(Path(practice.operation_dir).glob(".stdin*")) == []
    assert await start(practice, sh("cat", stdin=b"x" * 1000)) == Started.NEW


async def test_the_command_gets_nothing_of_ours_but_the_lock(practice: Practice) -> None:
    attached = await practice.host().run(Command(("sh", "-c", "umask")))
    script = "umask; for n in 0 1 2 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$n ] || echo $n; done"
    result = await practice.host().run(sh(script, stdin=b"x"))
    assert result.text.split() == [attached.text.strip(), "0", "1", "2", "9"]


async def test_a_daemon_that_keeps_the_lock_holds_nobody_up(practice: Practice) -> None:
    began = time.monotonic()
    pid_file = practice.server.root / "daemon"
    result = await practice.host().run(sh(f"setsid sleep 60 & echo $! >{pid_file}; echo started"))
    assert result.text == "started\n"
    assert time.monotonic() - began < 40
    assert await start(practice, sh("echo twice")) == Started.DONE
    await practice.host().stop_detached("step")  # done: nothing to stop
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


async def test_a_million_lines(practice: Practice) -> None:
    sink = Lines()
    await practice.host(sink).run(sh("seq 1000000"))
    assert sink.of(Stream.STDOUT) == [str(number) for number in range(1, 1_000_001)]


async def test_a_flood_fills_no_disk_and_ends_as_it_would_have(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached, "OUTPUT_BYTES", 100_001)
    result = await practice.host().run(sh("yes 12345678 | head -n 5000000; echo end >&2; exit 7"), check=False)
    assert result.exit_status == 7
    said = result.text.splitlines()
    assert said[0] == "12345678"
    assert said[-3:] == ["12345678", "12", "[the output was cut off here, after 100001 bytes]"]
    assert (practice.folder("step") / "output").stat().st_size < 101_000
    exact = await practice.host().run(sh("head -c 100001 /dev/zero | tr '\\0' x", name="exact"))
    assert exact.stdout == b"x" * 100_001
    assert not list(Path(practice.operation_dir).rglob("pipe"))


async def test_a_daemon_prints_on(practice: Practice) -> None:
    """What a command started may still print when it has ended; that neither stops it nor is it lost."""
    go = practice.server.root / "go"
    script = "(while [ ! -e $0 ]; do sleep 0.1; done; echo later; touch $0.done) & echo now"
    command = Command(("sh", "-c", script, str(go)), detached="step")
    assert (await practice.host().run(command)).text == "now\n"
    go.touch()
    await gone(go.with_name("go.done"), there=True)
    output = practice.folder("step") / "output"
    async with asyncio.timeout(10):
        while output.read_text() != "now\nlater\n":
            await asyncio.sleep(0.02)


async def test_bytes_that_are_no_text_and_no_end_of_line(practice: Practice) -> None:
    sink = Lines()
    result = await practice.host(sink).run(sh(r"printf '\377a\r\nb\rc'"))
    assert sink.of(Stream.STDOUT) == ["\ufffda", "b", "c"]
    assert result.stdout == b"\xffa\r\nb\rc"


async def test_stop_asks_first(practice: Practice) -> None:
    sink = Lines()
    host = practice.host(sink)
    running = asyncio.create_task(
        host.run(sh("trap 'echo bye; exit 9' TERM; echo begun; sleep 60 & wait"), check=False)
    )
    await sink.until("begun")
    await host.stop_detached("step")
    assert (await running).exit_status == 9
    assert sink.of(Stream.STDOUT) == ["begun", "bye"]


async def test_stop_kills_in_the_end(practice: Practice) -> None:
    sink = Lines()
    host = practice.host(sink)
    running = asyncio.create_task(host.run(sh("trap '' TERM; echo begun; while :; do sleep 1; done"), check=False))
    await sink.until("begun")
    stop = detached.stop(practice.operation_dir, "step", sudo=False, kill_after_s=0.5)
    assert (await host.run(stop)).ok
    assert (await running).exit_status == 137
    assert await start(practice, sh("echo again")) == Started.DONE


async def test_what_was_stopped_is_not_started_again_by_who_follows_it(practice: Practice) -> None:
    late = practice.server.root / "bin" / "sleep"
    late.write_text('#!/bin/sh\ngrep -q "send KILL" /proc/$PPID/cmdline && set -- 5\nexec /bin/sleep "$@"\n')
    late.chmod(0o755)
    sink = Lines()
    host = practice.host(sink)
    running = asyncio.create_task(host.run(sh("trap '' TERM; echo begun; while :; do /bin/sleep 9; done"), check=False))
    await sink.until("begun")
    assert (await host.run(detached.stop(practice.operation_dir, "step", sudo=False, kill_after_s=0))).ok
    assert (await running).exit_status == 137
    assert sink.of(Stream.STDOUT).count("begun") == 1
    assert not practice.folder("step.died-1").exists()


async def test_who_stops_again_does_not_change_what_counts(practice: Practice) -> None:
    """A killed command leaves no status, so what the first to stop it wrote counts."""
    sink = Lines()
    host = practice.host(sink)
    running = asyncio.create_task(host.run(sh("echo begun; sleep 60"), check=False))
    await sink.until("begun")
    practice.folder("step/stopped").write_text("137 0\n")
    assert (await host.run(detached.stop(practice.operation_dir, "step", sudo=False))).ok
    assert practice.folder("step/stopped").read_text() == "137 0\n"
    assert (await running).exit_status == 143


async def test_stop_leaves_alone_what_does_not_run(practice: Practice) -> None:
    host = practice.host()
    await host.stop_detached("never")
    await host.run(sh("true"))
    await host.stop_detached("step")
    assert await host.detached_status("step") == 0


async def test_quiet_detached_commands_leave_no_lines(practice: Practice) -> None:
    sink = Lines()
    result = await practice.host(sink).run(sh("echo hidden").quiet())
    assert result.text == "hidden\n"
    assert (sink.taken, sink.checkpoints) == ([], {})


async def test_a_server_that_forgot_gives_its_lines_from_the_start(practice: Practice) -> None:
    sink = Lines(checkpoints={"step": 500})
    await practice.host(sink).run(sh("echo anew"))
    assert sink.of(Stream.STDOUT) == ["anew"]
    assert sink.checkpoints == {"step": 5}


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x", "x.died-1", "A", "a b", "a\n"])
def test_names_are_folders_of_their_own(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        detached.start("/srv/op", 1, sh("true", name=name))


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("script", ["LOOK", "WRAPPER", "START", "FOLLOW", "STATUS", "STOP"])
async def test_the_scripts_are_shell(script: str, shell: str) -> None:
    process = await asyncio.create_subprocess_exec(shell, "-n", "-c", getattr(detached, script))
    assert await process.wait() == 0


def test_looks() -> None:
    assert parse_look(b"noise\ndone 12 3 4\n") == Look(State.DONE, 12, 3, 4)
    assert parse_look(b"running 0 0 0\n") == Look(State.RUNNING)
    for cut in (b"", b"done", b"done 1 2", b"gone 1 2 3", b"done x 2 3"):
        assert parse_look(cut) is None


def kill_session(folder: Path) -> None:
    """Kill the wrapper and all that it started, as the OOM killer or a power cut would."""
    leader = (folder / "started").read_text().split()[0]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            session = (process / "stat").read_text().rpartition(")")[2].split()[3]
        except OSError:
            continue
        if session == leader:
            os.kill(int(process.name), signal.SIGKILL)
