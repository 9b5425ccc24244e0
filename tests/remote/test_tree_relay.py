"""A client's files between two real connections: cut, killed, and done again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alfa_cloud.errors import CommandFailedError, ConnectionLostError
from alfa_cloud.remote import tree
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.relay import relay
from alfa_cloud.remote.session import SshHost

from .conftest import Lines, Practice, new_pool
from .test_tree import Sides, fill

pytestmark = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def test_a_script_that_was_left_behind_is_ended(sides: Sides) -> None:
    """It hangs on a stream that nobody reads; the next one takes its place."""
    (sides.here / "f").write_bytes(os.urandom(3_000_000))
    here, work, there, work_there = sides.ends
    stuck = sides.start(tree.pack(here, work), stdin=subprocess.DEVNULL)
    waiting = sides.start(tree.unpack(there, work_there, empty=False))
    assert stuck.stdout is not None
    stuck.stdout.read(1000)
    while not (Path(work_there) / "lock").exists() or not (Path(work_there) / "lock").read_text():
        time.sleep(0.01)
    began = time.monotonic()
    sides.copy()
    assert time.monotonic() - began < 20
    for process in (stuck, waiting):
        assert process.wait(10) != 0
        process.communicate()
    assert sides.same()
    sides.good(tree.settle(work))
    sides.good(tree.settle(f"{work}-none"))


@dataclass
class Way:
    """The same two folders, with a real connection to each."""

    sides: Sides
    pools: tuple[SshPool, SshPool]
    source: SshHost
    target: SshHost
    lines: Lines

    async def copy(self) -> int:
        here, work, there, work_there = self.sides.ends
        unpack = tree.unpack(there, work_there, empty=True)
        return await relay(self.source, tree.pack(here, work), self.target, unpack, progress_s=0)


@pytest.fixture
async def way(practice: Practice, tmp_path: Path) -> AsyncIterator[Way]:
    (tmp_path / "files").mkdir()
    other, lines = new_pool(), Lines()
    yield Way(
        Sides(tmp_path / "files"), (practice.pool, other), practice.host(), practice.host(lines, pool=other), lines
    )
    await other.close()


async def test_files_go_through_two_connections(way: Way) -> None:
    fill(way.sides.here)
    (way.sides.here / "s").unlink()
    await way.copy()
    here, work, there, work_there = way.sides.ends
    (way.sides.here / "two\nlines" / "-rf").unlink()
    (way.sides.here / "odd").write_text("new")
    await relay(way.target, tree.listing(there), way.source, tree.compare(here, work))
    found = tree.parse_difference((await way.source.run(tree.summary(work))).text)
    assert (found.files, found.bytes, found.dropped) == (1, 3, 1)
    await relay(way.source, tree.dropped(work), way.target, tree.drop_listed(there, work_there))
    await relay(way.source, tree.pack_listed(here, work), way.target, tree.unpack(there, work_there, empty=False))
    assert way.sides.same()


@pytest.mark.parametrize("end", [0, 1])
async def test_a_cut_connection_leaves_what_can_be_done_again(way: Way, end: int) -> None:
    for number in range(40):
        (way.sides.here / f"{number}").write_bytes(os.urandom(2**20))
    moving = asyncio.create_task(way.copy())
    async with asyncio.timeout(30):
        while len(way.lines.taken) < 10:
            await asyncio.sleep(0)
    await way.pools[end].close()
    with pytest.raises(ConnectionLostError):
        await moving
    await way.copy()
    assert way.sides.same()


async def test_a_killed_script_is_an_error(way: Way) -> None:
    for number in range(40):
        (way.sides.here / f"{number}").write_bytes(os.urandom(2**20))
    moving = asyncio.create_task(way.copy())
    lock = Path(way.sides.ends[3]) / "lock"
    async with asyncio.timeout(30):
        while len(way.lines.taken) < 10 or not lock.read_text():
            await asyncio.sleep(0)
    os.killpg(int(lock.read_text()), signal.SIGKILL)
    with pytest.raises((CommandFailedError, ConnectionLostError)):
        await moving
    assert not way.sides.same()
    await way.copy()
    assert way.sides.same()
