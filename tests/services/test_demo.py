"""Which dump is of the time before a client's demo data."""

from __future__ import annotations

from typing import Any

from alfa_cloud.db import SessionFactory
from alfa_cloud.services import operations
from alfa_cloud.services.demo import dump_before
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import OperationKind, OperationState
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_server

ENABLE, DISABLE = OperationKind.ENABLE_DEMO, OperationKind.DISABLE_DEMO
OK, ERROR = OperationState.OK, OperationState.ERROR


async def test_it_is_that_of_the_first_try_since_the_demo_data_went(sessions: SessionFactory, vault: Vault) -> None:
    ends: list[tuple[OperationKind, OperationState, dict[str, Any] | None, str]] = [
        (ENABLE, ERROR, None, ""),  # it failed before there was a dump
        (ENABLE, ERROR, {"dump": "a"}, "a"),
        (ENABLE, OK, {"dump": "a"}, "a"),
        (DISABLE, ERROR, None, "a"),
        (DISABLE, OK, {"dump": "fresh"}, ""),
        (ENABLE, OK, {"dump": "b"}, "b"),
    ]
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session))
        for kind, state, result, expected in ends:
            row, _ = await operations.request(session, kind, Caller(), client_id=client.id, server_id=client.server_id)
            row.state, row.result, row.finished_at = state, result, await operations.database_now(session)
            await session.flush()
            assert await dump_before(session, client.id) == expected
