"""Rows for tests: keyword functions, each with a row that is good as it is."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from uuid6 import uuid7

from alfa_cloud.models import Backup, Client, Operation, Place, Server
from alfa_cloud.services import operations
from alfa_cloud.services.client_specs import secret_place
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import ClientStatus, OperationKind, Secret
from alfa_cloud.vault import Vault, new_app_key, new_password

NUMBERS = count(1)
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBmX1ZKm2a2g2mYQ7c5Zr0dVbqjzq0o0j0b7yXb3v1xJ"


async def make_server(session: AsyncSession, **values: Any) -> Server:
    """A server that is ready for clients."""
    number = next(NUMBERS)
    server = Server(
        **{
            "name": f"server-{number}",
            "host": f"server-{number}.test",
            "database_engine": "postgresql",
            "base_domain": "cloud.test",
            "tls": "none",
            "host_key": HOST_KEY,
            "requirements_ok": True,
            **values,
        }
    )
    session.add(server)
    await session.flush()
    return server


async def make_client(session: AsyncSession, vault: Vault, server: Server, **values: Any) -> Client:
    """A client with everything allocated and sealed."""
    number = next(NUMBERS)
    name = values.pop("name", f"lab-{number}")
    client = Client(
        **{
            "name": name,
            "email": "lab@example.org",
            "domain": f"{name}.cloud.test",
            "owner_login": "lab@example.org",
            "server_id": server.id,
            "image": "1.0.0-master",
            "image_ref": "alfa:1.0.0-master",
            "status": ClientStatus.ACTIVE,
            "port": 20000 + number,
            "app_key": b"",
            "database_password": b"",
            **values,
        }
    )
    session.add(client)
    await session.flush()
    client.app_key = vault.seal(new_app_key(), secret_place("app_key", client))
    client.database_password = vault.seal(new_password(), secret_place("database_password", client))
    client.owner_password = vault.seal(Secret("owner-password-1"), secret_place("owner_password", client))
    await session.flush()
    return client


async def make_place(session: AsyncSession, client: Client, server: Server, **values: Any) -> Place:
    """What a moved client left on a server, kept for a week."""
    now = await operations.database_now(session)
    number = next(NUMBERS)
    place = Place(
        **{
            "client_id": client.id,
            "server_id": server.id,
            "slot": "a",
            "port": 22000 + 2 * number,
            "spare_port": 22001 + 2 * number,
            "image_ref": client.image_ref,
            "kept": True,
            "keep_until": now + timedelta(days=7),
            "forward_until": now + timedelta(days=14),
            **values,
        }
    )
    session.add(place)
    await session.flush()
    return place


async def make_backup(session: AsyncSession, client: Client, **values: Any) -> Backup:
    """A back-up on its client's server."""
    backup_id = values.pop("id", None) or uuid7()
    backup = Backup(
        **{
            "id": backup_id,
            "client_id": client.id,
            "server_id": client.server_id,
            "name": f"backup-{backup_id}",
            "reason": "command",
            "tables": {"users": 1},
            "files_count": 1,
            "files_bytes": 2,
            "size_bytes": 3,
            "sha256": "a" * 64,
            **values,
        }
    )
    session.add(backup)
    await session.flush()
    return backup


async def make_operation(session: AsyncSession, **values: Any) -> Operation:
    """A queued operation."""
    kind = values.pop("kind", OperationKind.UPDATE_CLIENT)
    values.setdefault("params", {"n": next(NUMBERS)})
    operation, _ = await operations.request(session, kind, Caller(), **values)
    return operation
