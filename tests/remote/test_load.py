"""A server's load: what the command prints, and how it is read."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import load
from alfa_cloud.remote.load import Load

SAID = """\
cpu  1000 0 500 8000 500 0 0 0 300 0
cpu  1030 0 520 8040 510 0 0 0 300 0
processors 4
load 0.52 1.25 2.00 3/959 7118
uptime 86400.53 300000.01
MemTotal:        8000000 kB
MemAvailable:    6000000 kB
SwapTotal:       1000000 kB
SwapFree:         750000 kB
disk 270553174016 76674527232
containers 6
"""


def test_the_load_is_read() -> None:
    assert load.parse(SAID) == Load(
        load_1m=0.52,
        load_5m=1.25,
        load_15m=2.0,
        cpu_count=4,
        cpu_percent=50.0,
        memory_total_bytes=8_192_000_000,
        memory_used_bytes=2_048_000_000,
        swap_total_bytes=1_024_000_000,
        swap_used_bytes=256_000_000,
        disk_total_bytes=270553174016,
        disk_free_bytes=76674527232,
        uptime_s=86400,
        containers_running=6,
    )


def test_a_server_without_docker_says_nothing_of_containers() -> None:
    assert load.parse(SAID.replace("containers 6\n", "")).containers_running is None


def test_processors_that_did_nothing_at_all() -> None:
    first = SAID.splitlines()[0]
    assert load.parse("\n".join([first, first, *SAID.splitlines()[2:]])).cpu_percent == 0.0


@pytest.mark.parametrize("line", range(len(SAID.splitlines()) - 1))
def test_an_answer_that_is_not_whole_is_no_load(line: int) -> None:
    lines = SAID.splitlines()
    with pytest.raises(RemoteError, match="understood"):
        load.parse("\n".join(lines[:line] + lines[line + 1 :]))


@pytest.mark.parametrize(
    "text", ["", "\x00\xff garbage", "This account is currently not available.", SAID.replace("4", "x")]
)
def test_something_else_is_no_load(text: str) -> None:
    with pytest.raises(RemoteError, match="understood"):
        load.parse(text)


def test_the_command_says_what_is_read(tmp_path: Path) -> None:
    """On this very machine, for a folder that is not there yet."""
    command = load.look(str(tmp_path / "not" / "there's\n$(yet)"))
    done = subprocess.run(command.argv, capture_output=True, check=True)
    found = load.parse(done.stdout.decode())
    assert found.cpu_count >= 1
    assert 0 <= found.cpu_percent <= 100
    assert 0 < found.memory_used_bytes < found.memory_total_bytes
    assert 0 < found.disk_free_bytes < found.disk_total_bytes
    assert found.uptime_s > 0
    assert done.stderr == b""
    assert list(tmp_path.iterdir()) == []
    assert set(asdict(found)) == set(Load.__dataclass_fields__)
