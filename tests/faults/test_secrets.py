"""Secrets stand where they must, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from alfa_cloud.vault import Vault
from tests.fixtures.cloud import Cloud
from tests.processes import Process

OWNER = "canary-of-the-owner-$1 'x'"


@pytest.fixture(autouse=True)
def running(cloud: Cloud) -> Iterator[Process]:
    """A worker for each test."""
    process = cloud.start_worker()
    yield process
    cloud.system.end(process)


def everything_stored(cloud: Cloud) -> str:
    """Every row of every table, as text."""
    tables = cloud.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").split()
    return "\n".join(cloud.sql(f'SELECT t::text FROM "{table}" AS t') for table in tables)


async def test_secrets_are_nowhere_to_be_read(cloud: Cloud, vault: Vault) -> None:
    client_id, operation_id = await cloud.system.create("canary", cloud.server_id, owner_password=OWNER)
    await cloud.system.ended(operation_id, expect="ok")
    uid = cloud.sql(f"SELECT uid FROM clients WHERE id = {client_id}")
    secrets = {"owner": OWNER}
    for column in ("app_key", "database_password"):
        sealed = bytes.fromhex(cloud.sql(f"SELECT encode({column}, 'hex') FROM clients WHERE id = {client_id}"))
        secrets[column] = vault.open(sealed, f"clients.{column}.{uid}").reveal()
    shown = [
        await cloud.system.call("GET", f"/clients/{client_id}?include=server,operation"),
        await cloud.system.log(f"/clients/{client_id}/create_log"),
        await cloud.system.call("GET", "/operations"),
    ]
    places = {
        "answers": json.dumps(shown, ensure_ascii=False),
        "logs of the service": cloud.system.logs(),
        "database": everything_stored(cloud),
        "Redis": "".join(
            path.read_text(errors="replace") for path in cloud.redis.data_dir.rglob("*aof*") if path.is_file()
        ),
        "arguments on the server": "\n".join(one.line for one in cloud.practice.commands()),
    }
    for place, text in places.items():
        assert text, place
        for name, secret in secrets.items():
            assert secret not in text, f"{name} in {place}"
    compose = Path(cloud.practice.layout.root) / "clients" / "canary" / "compose.yaml"
    assert compose.stat().st_mode & 0o777 == 0o600
    assert secrets["database_password"] in compose.read_text()
    left = [path for path in Path(cloud.practice.layout.root, "operations").rglob("*") if path.is_file()]
    assert left
    assert not any(OWNER in path.read_text(errors="replace") for path in left)
