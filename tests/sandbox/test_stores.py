"""The embedded stores: they start, survive, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis.asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from alfa_cloud.sandbox.binaries import RunAs
from alfa_cloud.sandbox.child import package_environment, wait_until
from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis, SandboxError

HELD = """
import sys, time
from pathlib import Path
from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis
folder = Path(sys.argv[1])
postgres, redis = EmbeddedPostgres(folder / "postgres", fsync=False), EmbeddedRedis(folder / "redis")
postgres.start()
redis.start()
print(postgres.pid, redis.pid, postgres.socket_dir, redis.socket_path.parent, flush=True)
time.sleep(60)
"""


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


async def test_postgres_answers_in_utf8_over_a_socket_only(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, fsync=False) as server:
        engine = create_async_engine(server.url)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT lower('ЛАБОРАТОРИЯ')")) == "лаборатория"
            assert await connection.scalar(text("SHOW listen_addresses")) == ""
        await engine.dispose()
        socket_dir = server.socket_dir
        assert socket_dir.stat().st_mode & 0o777 == 0o700
    assert not socket_dir.exists()
    assert not server.alive


def test_postgres_keeps_its_data_over_crashes_at_the_same_address(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, fsync=False) as server:
        url = server.url
        server.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        server.restart(immediate=True)
        assert (server.psql("SELECT n FROM kept"), server.url) == ("7", url)
        server.kill()
        assert not server.alive
        server.start()
        assert server.psql("SELECT n FROM kept") == "7"
    with EmbeddedPostgres(tmp_path, fsync=False) as again:
        assert again.psql("SELECT n FROM kept") == "7"


def test_a_second_run_is_told_who_has_the_data(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "p", fsync=False), EmbeddedRedis(tmp_path / "r"):
        with pytest.raises(SandboxError, match=rf"in use by another run \(process {os.getpid()}\)"):
            EmbeddedPostgres(tmp_path / "p").start()
        with pytest.raises(SandboxError, match="in use by another run"):
            EmbeddedRedis(tmp_path / "r").start()


def test_databases_are_copied_from_templates(postgres: EmbeddedPostgres) -> None:
    postgres.create_database("mould")
    postgres.psql("CREATE TABLE made (n int)", database="mould")
    postgres.create_database("copy", template="mould")
    assert postgres.psql("SELECT count(*) FROM made", database="copy") == "0"
    postgres.drop_database("copy")
    with pytest.raises(SandboxError, match='database "copy" does not exist'):
        postgres.psql("SELECT 1", database="copy")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes nobody")
def test_postgres_runs_as_nobody_where_namespaces_are_closed(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, fsync=False, run_as=RunAs.NOBODY) as server:
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
        assert server.psql("SELECT 1") == "1"
        data = server.identity.data_dir
    for path in {data} - {tmp_path}:
        subprocess.run(["rm", "-r", "--", str(path)], check=True)


def test_a_killed_parent_leaves_no_store_and_its_data_is_there(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HELD, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=package_environment(), text=True) as parent:
        assert parent.stdout is not None
        first, second, *folders = parent.stdout.readline().split()
        parent.kill()
    assert wait_until(lambda: not runs(int(first)) and not runs(int(second)), timeout_s=10)
    with EmbeddedPostgres(tmp_path / "postgres", fsync=False) as server, EmbeddedRedis(tmp_path / "redis"):
        assert server.psql("SELECT 1") == "1"
        assert not any(Path(folder).exists() for folder in folders)


def test_a_store_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    assert not wait_until(lambda: not server.alive, timeout_s=0.3)
    server.stop()


async def test_redis_keeps_what_it_holds_until_it_is_flushed(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        client = redis.asyncio.Redis.from_url(server.url)
        await client.set("key", "value")
        await client.aclose()
        await asyncio.to_thread(server.restart)
        assert await client.get("key") == b"value"
        await asyncio.to_thread(server.flush)
        assert await client.get("key") is None
        await client.aclose()
