"""What a look from outside says of clients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import func, update

from alfa_cloud.db import SessionFactory
from alfa_cloud.jobs import probing
from alfa_cloud.models import Client
from alfa_cloud.remote.probe import ProbeResult
from alfa_cloud.specs import ClientStatus
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_server

POOL: Any = SimpleNamespace(check_address=AsyncMock())


async def alive(sessions: SessionFactory, vault: Vault) -> int:
    """A client that should answer."""
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session), status=ClientStatus.ACTIVE)
        return client.id


async def said(sessions: SessionFactory, client_id: int) -> tuple[bool, str]:
    async with sessions() as session:
        client = await session.get_one(Client, client_id)
        return client.available, client.available_reason


async def test_the_row_says_what_was_found(
    sessions: SessionFactory, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_id, answer = await alive(sessions, vault), AsyncMock()
    monkeypatch.setattr(probing, "probe_http", answer)
    for result, wanted in (
        (ProbeResult(200, ""), (True, "")),
        (ProbeResult(503, ""), (False, "HTTP 503")),
        (ProbeResult(0, "no route"), (False, "no route")),
    ):
        answer.return_value = result
        await probing.probe_clients(sessions, POOL, client_id)
        assert await said(sessions, client_id) == wanted


async def test_what_an_operation_said_meanwhile_stays(
    sessions: SessionFactory, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page was there at the time of the look, and the operation has ended since."""
    client_id = await alive(sessions, vault)

    async def late(*_: object) -> ProbeResult:
        async with sessions.begin() as session:
            await session.execute(update(Client).values(available=True, available_at=func.clock_timestamp()))
        return ProbeResult(503, "")

    monkeypatch.setattr(probing, "probe_http", late)
    await probing.probe_clients(sessions, POOL)
    assert await said(sessions, client_id) == (True, "")
