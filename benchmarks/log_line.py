"""How soon a reader sees a line: from a command's print on the server to the event at `/operations/{id}/log`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.cloud import Cloud, also_print, running
from benchmarks.figures import Figure, median, p95

LINES = 80
LIMIT_MS = 500.0
"""A journal's batch is 0.2 s; the rest is for SSH, the commit, the notification and the reader."""

STAMPS = f"""
import random, time
for number in range({LINES}):
    print("{{name}}", time.monotonic_ns(), flush=True)
    time.sleep(random.uniform(0.02, 0.18))
"""


async def events(cloud: Cloud, operation_id: str) -> AsyncIterator[tuple[float, dict[str, Any]]]:
    """The events of an operation's log, each with the moment it came; to the end of the operation."""
    path = f"/operations/{operation_id}/log"
    async with cloud.system.http.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                yield time.monotonic() * 1000, json.loads(line.removeprefix("data: "))


async def delays(cloud: Cloud, operation_id: str) -> dict[str, list[float]]:
    """Milliseconds from print to event of every stamped line, by the word before the stamp."""
    found: dict[str, list[float]] = {}
    async for came, data in events(cloud, operation_id):
        name, _, stamp = data.get("text", "").partition(" ")
        if stamp.isdecimal() and len(stamp) > 9:
            found.setdefault(name, []).append(came - int(stamp) / 1e6)
    return found


async def run() -> list[Figure]:
    """A creation in which `docker compose up` (plain) and the migration (detached) print the clock, line by line."""
    async with running() as cloud:
        programs = [(name, STAMPS.replace("{name}", name)) for name in ("detached", "plain")]
        patterns = ('*" artisan migrate "*', '*" up --detach "*')
        also_print(
            cloud.practice[0], [(pattern, source) for pattern, (_, source) in zip(patterns, programs, strict=True)]
        )
        _, operation_id = await cloud.system.create("stamps", cloud.server_ids[0])
        async with asyncio.timeout(60):
            found = await delays(cloud, operation_id)
        await cloud.system.ended(operation_id, expect="ok")
    figures = []
    for name in ("plain", "detached"):
        assert len(found[name]) == LINES, found
        figures.append(Figure(f"line of a {name} command, median", median(found[name]), LIMIT_MS, "ms", "limit"))
        figures.append(Figure(f"line of a {name} command, p95", p95(found[name]), LIMIT_MS, "ms", "limit"))
    return figures
