"""What a server is busy with, by one command: processors, memory, disk, containers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host

# Two looks at the processors, a quarter of a second apart; all else as the kernel has it (proc(5)).
LOOK: Final = """
path=$1
cpu() { head -n 1 /proc/stat; }
cpu
sleep 0.25
cpu
grep -c '^cpu[0-9]' /proc/stat | sed 's/^/processors /'
sed 's/^/load /' /proc/loadavg
sed 's/^/uptime /' /proc/uptime
grep -E '^(MemTotal|MemAvailable|SwapTotal|SwapFree):' /proc/meminfo
while [ ! -e "$path" ]; do path=$(dirname -- "$path"); done
df --block-size=1 --output=size,avail -- "$path" | sed -n '2s/^/disk /p'
! ids=$(timeout 1 docker container ls --quiet 2>/dev/null) || echo "containers $(printf %s "$ids" | wc -w)"
exit 0
"""
IDLE: Final = (3, 4)
"""Of the first ten numbers of a `cpu` line: idle, iowait."""
GUEST: Final = 8
"""From here on the numbers are part of earlier ones."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a server is busy with at one moment; None where it does not say."""

    load_1m: float
    load_5m: float
    load_15m: float
    cpu_count: int
    cpu_percent: float
    """Of all processors, over a quarter of a second."""
    memory_total_bytes: int
    memory_used_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int
    disk_total_bytes: int
    """Of the file system that clients lie on."""
    disk_free_bytes: int
    uptime_s: int
    containers_running: int | None
    """None where Docker does not answer."""


def look(path: str) -> Command:
    """Print what `parse` reads.

    Args:
        path: the folder of all clients.
    """
    return Command(("sh", "-c", LOOK, "alfa-load", path), sudo=True, log=False, timeout_s=10)


async def take(host: Host) -> Load:
    """The server's load now.

    Raises:
        RemoteError: it could not be asked, or answers something else.
    """
    return parse((await host.run(look(host.layout.root))).text)


def parse(text: str) -> Load:
    """The load that the command printed.

    Raises:
        RemoteError: it is not all there.
    """
    rows = [line.split() for line in text.splitlines() if line.strip()]
    try:
        return _load({row[0].rstrip(":"): row[1:] for row in rows}, [row[1:] for row in rows if row[0] == "cpu"])
    except (KeyError, IndexError, ValueError) as error:
        raise RemoteError("The server does not say its load in a way that is understood here.") from error


def _load(said: dict[str, list[str]], cpu: list[list[str]]) -> Load:
    kib = {name: int(said[name][0]) * 1024 for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")}
    containers = said.get("containers")
    return Load(
        load_1m=float(said["load"][0]),
        load_5m=float(said["load"][1]),
        load_15m=float(said["load"][2]),
        cpu_count=int(said["processors"][0]),
        cpu_percent=_busy_percent(*([int(number) for number in row] for row in cpu)),
        memory_total_bytes=kib["MemTotal"],
        memory_used_bytes=kib["MemTotal"] - kib["MemAvailable"],
        swap_total_bytes=kib["SwapTotal"],
        swap_used_bytes=kib["SwapTotal"] - kib["SwapFree"],
        disk_total_bytes=int(said["disk"][0]),
        disk_free_bytes=int(said["disk"][1]),
        uptime_s=int(float(said["uptime"][0])),
        containers_running=None if containers is None else int(containers[0]),
    )


def _busy_percent(*looks: list[int]) -> float:
    before, after = looks
    spent = [late - early for early, late in zip(before[:GUEST], after[:GUEST], strict=True)]
    total, idle = sum(spent), sum(spent[place] for place in IDLE)
    return round(100 * min(1.0, max(0.0, 1 - idle / total)), 1) if total > 0 else 0.0
