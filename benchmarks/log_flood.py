"""A command that prints 1,000,000 lines at once: what it does to its worker, its log and its neighbours."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cloud import Cloud, also_print, running
from benchmarks.dispatch import dispatch_once
from benchmarks.figures import Figure, median

LINES = 1_000_000
CAP_LINES = 100_000
CAP_BYTES = 10_000_000
MEMORY_LIMIT_MB = 300.0
DISPATCH_LIMIT_MS = 100.0
RUNS_IDLE = 8
FLOOD = f"""
import sys
for start in range(1, {LINES + 1}, 10000):
    sys.stdout.write("".join("flood %07d the quick brown fox jumps over the lazy dog and floods\\n" % number
                             for number in range(start, start + 10000)))
"""


def peak_mb(pid: int) -> float:
    """The most memory that a process has held, in MB (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


async def neighbours(cloud: Cloud, clients: list[int], until: asyncio.Task[object]) -> list[dict[str, float]]:
    """Deletions on the other server, one after the other, while a task goes on."""
    found = [await dispatch_once(cloud, clients.pop())]
    while not until.done() and clients:
        found.append(await dispatch_once(cloud, clients.pop()))
    return found


async def flooded(cloud: Cloud, operation_id: str) -> None:
    """The flood has begun."""
    while cloud.sql(f"SELECT last_seq > 1000 FROM operations WHERE id = '{operation_id}'") != "t":
        await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of a flood in the log: its lines and bytes, and how many are missing, as it says and in truth."""

    lines: int
    size: int
    said_missing: int
    missing: int


def look_at_log(cloud: Cloud, operation_id: str) -> Kept:
    """What was kept; an assertion fails where the log has a gap, or lacks the flood's first or last line."""
    of = f"FROM operation_lines WHERE operation_id = '{operation_id}'"
    count, last, size = cloud.sql(f"SELECT count(*), max(seq), sum(octet_length(text)) {of}").split("|")
    assert count == last, (count, last)
    flood = f"{of} AND text LIKE 'flood %'"
    first, latest, kept = cloud.sql(f"SELECT min(substr(text, 7, 7)), max(substr(text, 7, 7)), count(*) {flood}").split(
        "|"
    )
    assert (first, latest) == ("0000001", f"{LINES:07}"), (first, latest)
    said = cloud.sql(f"SELECT sum(split_part(text, ' ', 1)::int) {of} AND text LIKE '%lines were left out here.'")
    return Kept(int(count), int(size), int(said), LINES - int(kept))


async def run() -> list[Figure]:
    """The flood is a creation's migration; its neighbours are deletions on another server, by the same worker."""
    async with running(servers=2) as cloud:
        assert cloud.worker is not None
        also_print(cloud.practice[0], [('*" artisan migrate "*', FLOOD)])
        clients = await cloud.failed_clients(cloud.server_ids[1], 200)
        idle = [await dispatch_once(cloud, clients.pop()) for _ in range(RUNS_IDLE)]
        before_mb = peak_mb(cloud.worker.pid)
        _, operation_id = await cloud.system.create("flood", cloud.server_ids[0])
        async with asyncio.timeout(60):
            await flooded(cloud, operation_id)
        began = time.monotonic()
        flood = asyncio.create_task(cloud.system.ended(operation_id, expect="ok"))
        busy = await neighbours(cloud, clients, flood)
        await flood
        took_s = time.monotonic() - began
        after_mb = peak_mb(cloud.worker.pid)
        kept = look_at_log(cloud, operation_id)
    print(f"[flood {took_s:.0f} s, {len(busy)} neighbours; worker's peak {before_mb:.0f} MB before] ", end="")
    answer = [one["answer"] for one in busy]
    whole = [[one["whole"] for one in found] for found in (busy, idle)]
    return [
        Figure("worker's peak memory", after_mb, MEMORY_LIMIT_MB, "MB", "limit"),
        Figure("lines kept", kept.lines, CAP_LINES, "lines", "limit"),
        Figure("bytes kept", kept.size / 1e6, CAP_BYTES / 1e6, "MB", "limit"),
        Figure("lines said to be left out, beside those that were", kept.said_missing, kept.missing, "lines", "peer"),
        Figure("meanwhile, 202 to first step, median", median(answer), DISPATCH_LIMIT_MS, "ms", "limit"),
        Figure(f"meanwhile, the same, worst of {len(answer)}", max(answer), DISPATCH_LIMIT_MS, "ms", "limit"),
        Figure("meanwhile, a deletion beside one on the idle system", median(whole[0]), median(whole[1]), "ms", "peer"),
    ]
