"""A whole service to measure: embedded stores, API and worker as processes, practice servers over SSH."""

from __future__ import annotations

import stat
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from tests.factories import make_client
from tests.processes import Process
from tests.system import System

from alfa_cloud.db import SessionFactory, make_engine, make_session_factory
from alfa_cloud.models import Server
from alfa_cloud.sandbox.practice import PracticeServer
from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis
from alfa_cloud.specs import ClientStatus
from alfa_cloud.vault import Vault, new_key

DEFAULTS = {"ALFA_LEASE_S": "30", "ALFA_HEARTBEAT_S": "10", "ALFA_RECONCILE_S": "5"}
"""The tests' System shortens these; here they are as in production."""

WRAPPER = """#!/bin/sh
case "$*" in
{cases}
esac
exec '{real}' "$@"
"""


@dataclass
class Cloud:
    """A running service, and the practice servers that are registered with it."""

    system: System
    postgres: EmbeddedPostgres
    engine: AsyncEngine
    sessions: SessionFactory
    vault: Vault
    worker: Process | None = None
    practice: list[PracticeServer] = field(default_factory=list)
    server_ids: list[str] = field(default_factory=list)

    def sql(self, query: str) -> str:
        """What the service's database says."""
        return self.postgres.psql(query)

    async def failed_clients(self, server_id: str, count: int) -> list[int]:
        """Clients whose creation failed, of which nothing is on the server: to delete one is the cheapest operation."""
        async with self.sessions.begin() as session:
            server = await session.get_one(Server, int(server_id))
            made = [
                await make_client(session, self.vault, server, status=ClientStatus.FAILED, port=None)
                for _ in range(count)
            ]
            return [client.id for client in made]

    async def delete(self, client_id: int) -> str:
        """The id of the operation that deletes a client, as soon as the answer with it is there."""
        made = await self.system.call("DELETE", f"/clients/{client_id}", status=202)
        return str(made["data"]["id"])

    async def moments(self, operation_id: str) -> dict[str, float]:
        """When an operation was written, claimed, began its first step, and ended: seconds since 1970."""
        row = self.sql(
            "SELECT extract(epoch FROM o.created_at), extract(epoch FROM o.started_at), "
            "extract(epoch FROM s.started_at), extract(epoch FROM o.finished_at) FROM operations o "
            f"JOIN operation_steps s ON s.operation_id = o.id AND s.position = 0 WHERE o.id = '{operation_id}'"
        )
        return dict(zip(("written", "claimed", "begun", "ended"), map(float, row.split("|")), strict=True))


@asynccontextmanager
async def stores() -> AsyncIterator[tuple[Path, EmbeddedPostgres, EmbeddedRedis]]:
    """A folder, and an empty PostgreSQL (with fsync) and Redis in it."""
    with (
        TemporaryDirectory(prefix="alfa-bench-", ignore_cleanup_errors=True) as name,
        EmbeddedPostgres(Path(name) / "postgres") as postgres,
        EmbeddedRedis(Path(name) / "redis") as redis,
    ):
        yield Path(name), postgres, redis


@asynccontextmanager
async def running(*, servers: int = 1, settings: dict[str, str] | None = None) -> AsyncIterator[Cloud]:
    """The service with one worker and so many practice servers; with none, there is no worker either."""
    secret_key = new_key()
    async with AsyncExitStack() as stack:
        folder, postgres, redis = await stack.enter_async_context(stores())
        (folder / "system").mkdir()
        system = System(
            folder / "system",
            database_url=postgres.url,
            redis_url=redis.url,
            secret_key=secret_key,
            settings={**DEFAULTS, **(settings or {})},
        )
        await stack.enter_async_context(system)
        engine = make_engine(postgres.url)
        stack.push_async_callback(engine.dispose)
        cloud = Cloud(system, postgres, engine, make_session_factory(engine), Vault([secret_key]))
        if servers:
            cloud.worker = system.start_worker()
        for number in range(servers):
            practice = stack.enter_context(PracticeServer(folder / f"practice-{number}", fsync=False))
            cloud.practice.append(practice)
            cloud.server_ids.append(await register(system, practice, f"practice-{number}"))
        yield cloud


async def register(system: System, practice: PracticeServer, name: str) -> str:
    """The id of a practice server that is registered and prepared."""
    practice.authorize((await system.http.get("/ssh_public_key", headers={"Accept": "text/plain"})).text)
    attributes: dict[str, Any] = {"database_engine": "postgresql", "base_domain": f"{name}.test", "tls": "none"}
    return await system.register(
        name=name, host=practice.host, port=practice.port, username=practice.username, **attributes
    )


def also_print(practice: PracticeServer, programs: Sequence[tuple[str, str]]) -> None:
    """From now on `docker` runs a program of ours first, where its arguments match.

    Args:
        programs: (shell pattern, Python source) for each; the first that matches counts.
    """
    docker, real = practice.folder.bin / "docker", practice.folder.bin / ".docker-real"
    docker.rename(real)
    cases = []
    for number, (pattern, source) in enumerate(programs):
        script = practice.folder.bin / f".program-{number}.py"
        script.write_text(source)
        cases.append(f"  {pattern}) '{sys.executable}' -I -S '{script}' ;;")
    docker.write_text(WRAPPER.format(cases="\n".join(cases), real=real))
    docker.chmod(real.stat().st_mode | stat.S_IXUSR)
