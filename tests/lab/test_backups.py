"""Back-ups on real hosts: made while people write, downloaded, proven, put back, and noticed where they are damaged."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

from alfa_cloud.db import SessionFactory, make_engine, make_session_factory
from alfa_cloud.sandbox.stores import EmbeddedPostgres
from alfa_cloud.services import backup_schedule, operations
from tests.lab.conftest import ON_POSTGRESQL, Lab
from tests.lab.hosts import LabHost
from tests.lab.test_switch import assert_saved, born, load, run

FILES_MB = 50
FLIP = r"""
set -eu
file=$(ls -d /srv/alfa/archive/*/"$1")
printf '\377\377\377\377' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") / 2)) conv=notrunc status=none
"""


@pytest.fixture
async def sessions(lab: Lab, postgres: EmbeddedPostgres) -> AsyncIterator[SessionFactory]:
    """Sessions of the service's own database."""
    del lab
    engine = make_engine(postgres.url_for("lab"))
    yield make_session_factory(engine)
    await engine.dispose()


def scratch(host: LabHost, engine: str, client_id: str) -> str:
    """What is left of a proof on a host."""
    name = f"alfa_proof_{client_id}"
    found = host.exec(["bash", "-c", "ls -d /srv/alfa/clients/proof* /srv/alfa/archive/*-proof 2>/dev/null"]).stdout
    if engine == "mariadb":
        sql = (
            f"SELECT schema_name FROM information_schema.schemata WHERE schema_name = '{name}' "
            f"UNION SELECT user FROM mysql.user WHERE user = '{name}'"
        )
        argv = ["mariadb", "-BNe", sql]
    else:
        sql = (
            f"SELECT datname FROM pg_database WHERE datname = '{name}' "
            f"UNION SELECT rolname FROM pg_roles WHERE rolname = '{name}'"
        )
        argv = ["runuser", "-u", "postgres", "--", "psql", "-Atc", sql]
    asked = host.exec(argv)
    assert asked.returncode == 0, asked.stderr
    return (found + asked.stdout).decode()


async def listed(lab: Lab, client_id: str) -> list[Any]:
    """The client's back-ups, the newest first."""
    rows: list[Any] = (await lab.system.call("GET", f"/clients/{client_id}/backups", status=200))["data"]
    return rows


async def shown(lab: Lab, client_id: str, backup_id: str) -> Any:
    """The attributes of a back-up now."""
    found = await lab.system.call("GET", f"/clients/{client_id}/backups/{backup_id}", status=200)
    return found["data"]["attributes"]


async def prove(lab: Lab, sessions: SessionFactory, backup_id: str, *, expect: str) -> Any:
    """A proof as the clock asks for it, to its end."""
    async with sessions.begin() as session:
        before = await operations.database_now(session)
        await backup_schedule.request_proof(session, UUID(backup_id))
    asked = await lab.system.call("GET", "/operations?filter[kind]=prove_backup&sort=-created_at", status=200)
    assert asked["data"][0]["attributes"]["created_at"] >= before.isoformat()[:19]
    return await lab.system.ended(asked["data"][0]["id"], expect=expect)


async def download(lab: Lab, url: str) -> tuple[int, str]:
    """The length and the SHA-256 of a file that somebody without the login gets."""
    digest, length = hashlib.sha256(), 0
    async with (
        httpx.AsyncClient(base_url=lab.system.url, trust_env=False, timeout=60) as stranger,
        stranger.stream("GET", url) as answer,
    ):
        assert answer.status_code == 200
        async for part in answer.aiter_bytes():
            digest.update(part)
            length += len(part)
    return length, digest.hexdigest()


@pytest.mark.parametrize("engine", ON_POSTGRESQL)
async def test_a_backup_is_all_that_it_should_be(lab: Lab, engine: str, sessions: SessionFactory) -> None:
    system, host = lab.system, lab.hosts[engine]
    client_id, client = await born(lab, engine, "kept")
    storage = f"/srv/alfa/clients/{client['name']}/storage"
    made = host.exec(["bash", "-c", f"head -c {FILES_MB}000000 /dev/urandom >{storage}/big; sha256sum {storage}/big"])
    assert made.returncode == 0, made.stderr
    async with load(host, client["domain"], write=True) as visitors:
        while not visitors.saved:
            await asyncio.sleep(0.1)
        before = list(visitors.saved)
        ended = await run(lab, f"/clients/{client_id}/backups")
        assert len(visitors.saved) > len(before)
    assert visitors.failed == 0
    (backup,) = await listed(lab, client_id)
    attributes = await shown(lab, client_id, backup["id"])
    size, sha256 = await download(lab, attributes["download_url"])
    assert (size, sha256) == (attributes["size_bytes"], attributes["sha256"])
    assert size > FILES_MB * 1_000_000

    proof = await prove(lab, sessions, backup["id"], expect="ok")
    assert (await shown(lab, client_id, backup["id"]))["proven_at"] is not None
    assert scratch(host, engine, client_id) == ""
    assert_saved(host, engine, client_id, visitors.saved)  # nothing of the client was touched

    host.exec(["rm", f"{storage}/big"])
    await run(lab, f"/clients/{client_id}/backups/{backup['id']}/restore")
    assert_saved(host, engine, client_id, before)
    assert host.exec(["sha256sum", f"{storage}/big"]).stdout == made.stdout
    fresh, older = await listed(lab, client_id)
    assert (fresh["attributes"]["reason"], older["id"]) == ("restore", backup["id"])
    samples = "samples" if engine == "mariadb" else "public.samples"
    rows = {one["id"]: one["attributes"]["tables"][samples] for one in (fresh, older)}
    assert rows[fresh["id"]] > rows[backup["id"]] >= len(before)

    flipped: subprocess.CompletedProcess[bytes] = host.exec(["sh", "-c", FLIP, "flip", f"backup-{backup['id']}.files"])
    assert flipped.returncode == 0, flipped.stderr
    failed = await prove(lab, sessions, backup["id"], expect="error")
    assert failed["error"]["code"] == "backup_damaged"
    assert "SHA-256" in (await shown(lab, client_id, backup["id"]))["proof_error"]
    assert scratch(host, engine, client_id) == ""
    url = (await shown(lab, client_id, backup["id"]))["download_url"]
    with pytest.raises(httpx.RemoteProtocolError):
        await download(lab, url)
    await run(lab, f"/clients/{client_id}/backups/{backup['id']}/restore", expect="error")
    assert (await system.client(client_id))["available"] is True
    assert_saved(host, engine, client_id, before)
    took = datetime.fromisoformat(proof["finished_at"]) - datetime.fromisoformat(proof["started_at"])
    print(f"\n{engine}: {size / 1e6:.0f} MB, back-up {ended['seconds']:.1f} s, proof {took.total_seconds():.1f} s")
