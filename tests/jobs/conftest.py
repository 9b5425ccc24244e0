"""A claimed operation, and its journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from alfa_cloud.db import SessionFactory
from alfa_cloud.jobs.journal import Journal
from alfa_cloud.services import operations
from alfa_cloud.services.operations import Claim
from tests.factories import make_operation, make_server


async def claim_again(sessions: SessionFactory, operation_id: UUID, lease_s: float = 30) -> Claim:
    """The claim of another worker; the former lease must have ended."""
    async with sessions.begin() as session:
        found = await operations.claim(session, operation_id, "another", lease_s)
    assert found is not None
    return found


@pytest.fixture
async def held(sessions: SessionFactory) -> Claim:
    """An operation that this test's worker holds."""
    async with sessions.begin() as session:
        operation = await make_operation(session, server_id=(await make_server(session)).id)
    return await claim_again(sessions, operation.id)


@pytest.fixture
async def journal(sessions: SessionFactory, held: Claim) -> AsyncIterator[Journal]:
    """The journal of that operation, with small caps."""
    async with Journal(sessions, held, max_lines=1_000, max_bytes=400_000) as made:
        yield made
