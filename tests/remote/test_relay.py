"""What one server prints goes into another, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, ConnectionLostError
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.relay import relay
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import Stream

from .conftest import Lines, Practice, new_pool

ENDLESS = Command(("cat", "/dev/zero"), timeout_s=60)
SINK = Command(("sh", "-c", "cat >/dev/null"), timeout_s=60)


@dataclass
class Ends:
    """Two hosts, each with connections of its own."""

    pools: tuple[SshPool, SshPool]
    source: SshHost
    target: SshHost
    lines: Lines


@pytest.fixture
async def ends(practice: Practice) -> AsyncIterator[Ends]:
    """Two hosts on one server."""
    lines, other = Lines(), new_pool()
    yield Ends((practice.pool, other), practice.host(), practice.host(lines, pool=other), lines)
    await other.close()


def sh(script: str, *arguments: str, timeout_s: float = 60) -> Command:
    """A shell script."""
    return Command(("sh", "-c", script, "sh", *arguments), timeout_s=timeout_s)


async def test_every_byte_arrives_and_the_journal_hears_of_it(ends: Ends, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 4096 * 24)
    read, keep = Command(("cat", str(source))), sh('cat >"$1"', str(target))
    moved = await relay(ends.source, read, ends.target, keep, about_bytes=25_000_000, progress_s=0)
    assert moved == source.stat().st_size
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert ends.lines.of(Stream.SYSTEM)[-1] == "25 of about 25 MB"
    assert ends.lines.of(Stream.STDOUT) == []


async def test_nothing_is_something(ends: Ends) -> None:
    assert await relay(ends.source, Command(("true",)), ends.target, SINK) == 0


async def test_a_source_that_fails_names_its_reason(ends: Ends) -> None:
    broken = sh("head --bytes=3000000 /dev/zero; echo 'disk broke' >&2; exit 3")
    with pytest.raises(CommandFailedError, match="disk broke") as caught:
        await relay(ends.source, broken, ends.target, SINK)
    assert caught.value.exit_status == 3


async def test_a_target_that_fails_ends_it_at_once(ends: Ends) -> None:
    full = sh("head --bytes=1000000 >/dev/null; echo 'no space left' >&2; exit 5")
    async with asyncio.timeout(20):
        with pytest.raises(CommandFailedError, match="no space left") as caught:
            await relay(ends.source, ENDLESS, ends.target, full)
    assert caught.value.exit_status == 5


async def test_a_target_that_has_it_already_ends_it_well(ends: Ends) -> None:
    async with asyncio.timeout(20):
        await relay(ends.source, ENDLESS, ends.target, sh("exit 76"), done=(0, 76))


async def test_a_source_that_hangs_is_ended_by_its_server(ends: Ends) -> None:
    with pytest.raises(CommandTimeoutError):
        await relay(ends.source, sh("sleep 30", timeout_s=0.5), ends.target, SINK)


@pytest.mark.parametrize("end", [0, 1])
async def test_a_cut_connection_is_unknown(ends: Ends, end: int) -> None:
    moving = asyncio.create_task(relay(ends.source, ENDLESS, ends.target, SINK, progress_s=0))
    await told(ends.lines)
    await ends.pools[end].close()
    async with asyncio.timeout(20):
        with pytest.raises(ConnectionLostError):
            await moving


async def told(lines: Lines) -> None:
    """Wait until something has been moved."""
    async with asyncio.timeout(20):
        while not lines.taken:
            await asyncio.sleep(0)


async def test_what_a_source_printed_well_and_was_lost_on_the_way_is_missed(ends: Ends, tmp_path: Path) -> None:
    """It has ended with status 0, and its last bytes wait for the target when its connection goes."""
    produce = sh('head -c 27000000 /dev/zero; touch "$1"', str(tmp_path / "done"))
    consume = sh('while [ ! -e "$1" ]; do sleep 0.05; done; cat >"$2"', str(tmp_path / "go"), str(tmp_path / "file"))
    moving = asyncio.create_task(relay(ends.source, produce, ends.target, consume))
    async with asyncio.timeout(20):
        while not (tmp_path / "done").exists():
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    await ends.pools[0].close()
    (tmp_path / "go").touch()
    async with asyncio.timeout(20):
        with pytest.raises(ConnectionLostError):
            await moving


async def test_a_slow_reader_holds_the_source_back(ends: Ends, tmp_path: Path) -> None:
    """What the source could give away is bounded by the windows, not by what it has."""
    count = tmp_path / "count"
    plenty = sh('dd if=/dev/zero bs=1M count=400 status=none | tee "$1"', str(count))
    with pytest.raises(CommandFailedError):
        await relay(ends.source, plenty, ends.target, sh("sleep 1.5; exit 9"))
    assert count.stat().st_size < 150 * 1024**2
