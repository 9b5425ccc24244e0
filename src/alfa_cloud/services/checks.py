"""What a server must have, looked at when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import HostKeyChangedError, RemoteError
from alfa_cloud.models import Server
from alfa_cloud.remote import requirements
from alfa_cloud.remote.look import host_to_look_at
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.requirements import Finding
from alfa_cloud.services.images import ServerUnavailableError
from alfa_cloud.specs import Tls

LOOK_S: Final = 15.0


async def look(pool: SshPool, server: Server, min_free_bytes: int) -> list[Finding]:
    """Every requirement of a server, as it is now.

    Raises:
        ServerUnavailableError: it could not be asked in time.
        HostKeyChangedError: it shows another key than the pinned one.
    """
    host = host_to_look_at(pool, server.address, server.layout_spec)
    try:
        async with asyncio.timeout(LOOK_S):
            return await requirements.check_all(host, server.engine, Tls(server.tls), min_free_bytes)
    except HostKeyChangedError:
        raise
    except (RemoteError, TimeoutError) as error:
        words = error.detail if isinstance(error, RemoteError) else f"no answer within {LOOK_S:g} s"
        last = ", ".join(row["name"] for row in server.requirements if not row["ok"]) or "nothing"
        raise ServerUnavailableError(
            f"The server cannot be checked: {words} At the last look it missed: {last}."
        ) from error


async def remember(session: AsyncSession, server_id: int, findings: Sequence[Finding]) -> None:
    """What the look found is kept."""
    now = func.clock_timestamp()
    values = {"requirements": [asdict(row) for row in findings], "requirements_ok": requirements.all_met(findings)}
    await session.execute(update(Server).where(Server.id == server_id).values(**values, reachable=True, seen_at=now))
