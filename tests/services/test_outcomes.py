"""What the end of an operation means for its client, also where two ends meet."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import func

from alfa_cloud.db import SessionFactory
from alfa_cloud.models import Client, Operation
from alfa_cloud.services import backups, control, operations, outcomes
from alfa_cloud.services.operations import Caller
from alfa_cloud.services.outcomes import Ended
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_operation, make_server


async def status(sessions: SessionFactory, client_id: int) -> str:
    """A client's status now."""
    async with sessions() as session:
        return (await session.get_one(Client, client_id)).status


async def deleted_while_created(sessions: SessionFactory, vault: Vault) -> tuple[int, UUID, UUID]:
    """A client whose creation runs and whose deletion waits; both operations."""
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session), status=ClientStatus.CREATING)
        creation = await make_operation(
            session, kind=OperationKind.CREATE_CLIENT, client_id=client.id, server_id=client.server_id
        )
        await operations.claim(session, creation.id, "worker", 30)
    async with sessions.begin() as session:
        deletion = await backups.request_deletion(session, client.id, Caller(), keep_archive=True, confirm_name="")
    return client.id, creation.id, deletion.id


async def end(sessions: SessionFactory, operation_id: UUID, state: OperationState) -> None:
    """An operation ends, with what that means."""
    async with sessions.begin() as session:
        operation = await session.get_one(Operation, operation_id)
        await outcomes.apply(session, Ended.of(operation, state))
        operation.state = state


async def cancel(sessions: SessionFactory, operation_id: UUID) -> None:
    """Somebody cancels an operation."""
    async with sessions.begin() as session:
        await control.cancel(session, operation_id)


async def test_a_cancelled_deletion_leaves_a_creation_that_runs(sessions: SessionFactory, vault: Vault) -> None:
    client_id, creation, deletion = await deleted_while_created(sessions, vault)
    await cancel(sessions, deletion)
    assert await status(sessions, client_id) == ClientStatus.CREATING
    await end(sessions, creation, OperationState.ERROR)
    assert await status(sessions, client_id) == ClientStatus.FAILED


@pytest.mark.parametrize(
    ("ended", "expected"),
    [(OperationState.OK, ClientStatus.ACTIVE), (OperationState.ERROR, ClientStatus.FAILED)],
)
async def test_a_cancelled_deletion_sees_how_the_creation_ended_meanwhile(
    sessions: SessionFactory, vault: Vault, ended: OperationState, expected: ClientStatus
) -> None:
    """The creation's end is written and not committed while the deletion is cancelled."""
    client_id, creation, deletion = await deleted_while_created(sessions, vault)
    async with sessions.begin() as session:
        operation = await session.get_one(Operation, creation)
        await outcomes.apply(session, Ended.of(operation, ended))
        operation.state = ended
        await session.flush()
        cancelling = asyncio.create_task(cancel(sessions, deletion))
        await asyncio.sleep(0.3)
        assert not cancelling.done()
    await cancelling
    assert await status(sessions, client_id) == expected


async def test_a_cancelled_deletion_does_not_trust_what_was_read_before(sessions: SessionFactory, vault: Vault) -> None:
    client_id, creation, deletion = await deleted_while_created(sessions, vault)
    async with sessions.begin() as session:
        before = await session.get_one(Client, client_id)
        await end(sessions, creation, OperationState.OK)
        await control.cancel(session, deletion)
        assert before.status == ClientStatus.ACTIVE
    assert await status(sessions, client_id) == ClientStatus.ACTIVE


@pytest.mark.parametrize(("blocked", "expected"), [(False, ClientStatus.ACTIVE), (True, ClientStatus.EXPIRED)])
async def test_a_client_that_lives_is_what_it_was_when_its_deletion_ends(
    sessions: SessionFactory, vault: Vault, blocked: bool, expected: ClientStatus
) -> None:
    client_id, creation, deletion = await deleted_while_created(sessions, vault)
    await end(sessions, creation, OperationState.OK)
    async with sessions.begin() as session:
        client = await session.get_one(Client, client_id)
        client.blocked, client.status = blocked, ClientStatus.DELETING
    await cancel(sessions, deletion)
    assert await status(sessions, client_id) == expected


@pytest.mark.parametrize("alive", [False, True])
async def test_only_a_client_that_lives_is_available_after_an_update(
    sessions: SessionFactory, vault: Vault, alive: bool
) -> None:
    """An update of one that never lived has nothing to do, and ends well."""
    async with sessions.begin() as session:
        server = await make_server(session)
        client = await make_client(session, vault, server, status=ClientStatus.FAILED, available_reason="failed")
        if alive:
            client.activated_at = await session.scalar(func.clock_timestamp().select())
        operation = await make_operation(session, client_id=client.id, server_id=server.id)
    await end(sessions, operation.id, OperationState.OK)
    async with sessions() as session:
        client = await session.get_one(Client, client.id)
        assert (client.available, client.available_reason == "") == (alive, alive)
