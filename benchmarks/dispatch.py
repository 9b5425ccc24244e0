"""How soon a worker begins what the API has answered: from the 202 to the first step, on an idle system."""

from __future__ import annotations

import asyncio
import random
import time

from benchmarks.cloud import Cloud, running
from benchmarks.figures import Figure, median, p95

RUNS = 40
LIMIT_MS = 100.0


async def dispatch_once(cloud: Cloud, client_id: int) -> dict[str, float]:
    """Milliseconds of one deletion: answer to first step, row to first step, row to claim, and the whole of it."""
    operation_id = await cloud.delete(client_id)
    answered = time.time()
    await cloud.system.ended(operation_id, expect="ok")
    at = await cloud.moments(operation_id)
    return {
        "answer": (at["begun"] - answered) * 1000,
        "row": (at["begun"] - at["written"]) * 1000,
        "claim": (at["claimed"] - at["written"]) * 1000,
        "whole": (at["ended"] - at["written"]) * 1000,
    }


async def run() -> list[Figure]:
    """One worker, nothing to do; then an operation, whose first step is timed by the database's clock."""
    chance = random.Random(1)
    async with running() as cloud:
        clients = await cloud.failed_clients(cloud.server_ids[0], RUNS + 1)
        await dispatch_once(cloud, clients.pop())
        found = []
        for client_id in clients:
            await asyncio.sleep(chance.uniform(0.05, 0.25))  # at any moment between two polls
            found.append(await dispatch_once(cloud, client_id))
    answer, row, claim = ([one[name] for one in found] for name in ("answer", "row", "claim"))
    return [
        Figure("202 to first step, median", median(answer), LIMIT_MS, "ms", "limit"),
        Figure("202 to first step, p95", p95(answer), LIMIT_MS, "ms", "limit"),
        Figure("row written to first step, median", median(row), LIMIT_MS, "ms", "limit"),
        Figure("row written to first step, p95", p95(row), LIMIT_MS, "ms", "limit"),
        Figure("row written to claim, median", median(claim), LIMIT_MS, "ms", "limit"),
    ]
