"""The service on a practice server that can be told to fail, and what must hold after every fault."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alfa_cloud.sandbox.practice import PracticeServer
from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis
from tests.system import System


@dataclass
class Cloud:
    """A running service, its stores, and one practice server."""

    system: System
    practice: PracticeServer
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    database: str
    server_id: str
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self, failpoint: str = "") -> subprocess.Popen[bytes]:
        """A worker that dies where the failpoint says."""
        self.system.environment["ALFA_FAILPOINT"] = failpoint
        self.workers.append(self.system.start_worker())
        del self.system.environment["ALFA_FAILPOINT"]
        return self.workers[-1]

    def sql(self, query: str) -> str:
        """What the service's own database says."""
        return self.postgres.psql(query, database=self.database).strip()

    def residue(self, name: str, client_id: str) -> list[str]:
        """What is left of a client on the server."""
        layout, root = self.practice.layout, Path(self.practice.layout.root)
        found = [str(path) for path in root.glob(f"clients/{name}*")]
        found += [str(path) for path in Path(layout.nginx_dir).glob(f"alfa-{name}.conf*")]
        found += [line for line in self.containers() if f"alfa-{name}-" in line]
        found += [line for line in self.tenant_sql("SELECT datname FROM pg_database") if line == f"alfa_{client_id}"]
        found += [line for line in self.tenant_sql("SELECT rolname FROM pg_roles") if line == f"alfa_{client_id}"]
        return found

    def tenant_sql(self, query: str) -> list[str]:
        """What the server's database says to its administrator."""
        psql = ("psql", "--no-psqlrc", "-At", "-d", "postgres", "-c", query)
        return self.on_server("sudo", "-n", "-u", "postgres", "--", *psql).split()

    def containers(self) -> list[str]:
        """The descriptions of all containers on the server."""
        return self.on_server("docker", "container", "ls", "--all", "--no-trunc", "--format", "{{json .}}").splitlines()

    def on_server(self, *argv: str) -> str:
        """What a command on the server prints, past SSH and past the product."""
        programs = f"{self.practice.folder.root}/bin"
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        done = subprocess.run([f"{programs}/{argv[0]}", *argv[1:]], capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def count(self, *words: str) -> int:
        """How often Docker was run with all these words among its arguments."""
        runs = [one for one in self.practice.commands("docker", kind="stand_in") if set(words) <= set(one.argv)]
        return len(runs)

    async def assert_sound(self, operation_id: str, attributes: dict[str, Any]) -> None:
        """What holds after every end: a log without a gap, a lease that is free, and no bell that rings in vain."""
        lines = await self.system.log(f"/operations/{operation_id}/log")
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert attributes["completed"] is not None
        assert self.sql(f"SELECT lease_until IS NULL FROM operations WHERE id = '{operation_id}'") == "t"


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PracticeServer]:
    """A practice server."""
    with PracticeServer(tmp_path_factory.mktemp("practice"), fsync=False) as server:
        yield server


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedPostgres, EmbeddedRedis]]:
    """Stores of this module's own, which it may restart."""
    folder = tmp_path_factory.mktemp("stores")
    with EmbeddedPostgres(folder / "postgres", fsync=False) as postgres, EmbeddedRedis(folder / "redis") as redis:
        yield postgres, redis


@pytest.fixture(scope="module")
async def cloud(
    practice: PracticeServer,
    stores: tuple[EmbeddedPostgres, EmbeddedRedis],
    secret_key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Cloud]:
    """The service with no worker, the practice server registered."""
    postgres, redis = stores
    system = System(
        tmp_path_factory.mktemp("system"),
        database_url=postgres.url,
        redis_url=redis.url,
        secret_key=secret_key,
        settings={"ALFA_APP__HEALTH_DEADLINE_S": "5", "ALFA_RETRY_DELAYS_S": "0.1,0.2,0.5"},
    )
    async with system:
        worker = system.start_worker()
        key = (await system.http.get("/ssh_public_key", headers={"Accept": "text/plain"})).text
        practice.authorize(key)
        server_id = await system.register(
            name="practice",
            host=practice.host,
            port=practice.port,
            username=practice.username,
            database_engine="postgresql",
            base_domain="practice.test",
            tls="none",
        )
        system.end(worker)
        yield Cloud(system, practice, postgres, redis, postgres.database, server_id)


@pytest.fixture
def worker(cloud: Cloud) -> Iterator[subprocess.Popen[bytes]]:
    """A worker for one test."""
    process = cloud.start_worker()
    yield process
    cloud.system.end(process)


@pytest.fixture(autouse=True)
def no_faults(practice: PracticeServer) -> Iterator[None]:
    """Each test begins with a server that works."""
    practice.clear_faults()
    yield
    practice.clear_faults()
