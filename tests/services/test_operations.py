"""The life of an operation: claims, order, limits, fences, cancel and retry."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import LeaseLostError, NotCancellableError, NotRetryableError
from alfa_cloud.models import Client, Operation, OperationEvent, Server
from alfa_cloud.services import control, operations
from alfa_cloud.services.operations import Caller, Claim
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_operation, make_server


async def claim(sessions: SessionFactory, operation_id: UUID, lease_s: float = 30) -> Claim | None:
    """A worker's claim, in a transaction of its own."""
    async with sessions.begin() as session:
        return await operations.claim(session, operation_id, "worker", lease_s)


async def must_claim(sessions: SessionFactory, operation_id: UUID, lease_s: float = 30) -> Claim:
    """A claim that must succeed."""
    found = await claim(sessions, operation_id, lease_s)
    assert found is not None
    return found


async def finish(sessions: SessionFactory, held: Claim, state: OperationState = OperationState.OK) -> None:
    """The end of a claimed operation."""
    async with sessions.begin() as session:
        await operations.finish(session, held, state)


async def test_claim_is_exclusive(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        operation = await make_operation(session, server_id=(await make_server(session)).id)
    found = await asyncio.gather(*(claim(sessions, operation.id) for _ in range(8)))
    assert len([one for one in found if one is not None]) == 1


async def test_expired_lease_is_taken_over_and_the_old_fence_is_dead(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        operation = await make_operation(session, server_id=(await make_server(session)).id)
    first = await must_claim(sessions, operation.id, lease_s=0.01)
    await asyncio.sleep(0.05)
    second = await must_claim(sessions, operation.id)
    assert (second.attempt, second.fence) == (2, first.fence + 1)
    async with sessions() as session:
        with pytest.raises(LeaseLostError):
            await operations.renew(session, first, 30)
        with pytest.raises(LeaseLostError):
            await operations.finish(session, first, OperationState.ERROR)


async def test_operations_of_a_client_run_in_order(sessions: SessionFactory, vault: Vault) -> None:
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session))
        made = [
            await make_operation(session, client_id=client.id, server_id=client.server_id, params={"n": n})
            for n in range(3)
        ]
    for number, operation in enumerate(made):
        for later in made[number + 1 :]:
            assert await claim(sessions, later.id) is None
        await finish(sessions, await must_claim(sessions, operation.id))


async def test_a_server_runs_at_most_max_parallel(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        server = await make_server(session, max_parallel=2)
        made = [await make_operation(session, server_id=server.id, params={"n": n}) for n in range(5)]
    found = await asyncio.gather(*(claim(sessions, operation.id) for operation in made))
    held = [one for one in found if one is not None]
    assert len(held) == 2
    await finish(sessions, held[0])
    async with sessions() as session:
        assert len(await operations.due(session)) == 1


async def test_an_exclusive_operation_waits_for_the_running_and_holds_back_the_later(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        server = await make_server(session)
        before = await make_operation(session, server_id=server.id)
        alone = await make_operation(session, server_id=server.id, exclusive=True)
        after = await make_operation(session, server_id=server.id)
    running = await must_claim(sessions, before.id)
    assert await claim(sessions, alone.id) is None
    assert await claim(sessions, after.id) is None
    await finish(sessions, running)
    holding = await must_claim(sessions, alone.id)
    assert await claim(sessions, after.id) is None
    await finish(sessions, holding)
    await must_claim(sessions, after.id)


async def test_an_equal_command_is_the_last_unfinished_one_only(sessions: SessionFactory, vault: Vault) -> None:
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session))

    async def ask(n: int) -> UUID:
        async with sessions.begin() as session:
            await session.get(Client, client.id, with_for_update=True)
            operation = await make_operation(session, client_id=client.id, server_id=client.server_id, params={"n": n})
            return operation.id

    enable, again, disable, enable_once_more = await ask(1), await ask(1), await ask(2), await ask(1)
    assert enable == again
    assert len({enable, disable, enable_once_more}) == 3


async def test_equal_commands_at_once_are_one(sessions: SessionFactory, vault: Vault) -> None:
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session))

    async def ask() -> UUID:
        async with sessions.begin() as session:
            await session.get(Client, client.id, with_for_update=True)
            operation = await make_operation(session, client_id=client.id, server_id=client.server_id, params={})
            return operation.id

    assert len(set(await asyncio.gather(*(ask() for _ in range(30))))) == 1


async def test_a_terminal_state_is_final(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        operation = await make_operation(session, server_id=(await make_server(session)).id)
    await finish(sessions, await must_claim(sessions, operation.id))
    with pytest.raises(DBAPIError, match="has ended as ok"):
        async with sessions.begin() as session:
            await session.execute(text("UPDATE operations SET state = 'running'"))


async def test_every_change_of_state_is_an_event(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        operation = await make_operation(session, server_id=(await make_server(session)).id)
    await finish(sessions, await must_claim(sessions, operation.id))
    async with sessions() as session:
        events = await session.scalars(select(OperationEvent.state).order_by(OperationEvent.id))
        assert list(events) == ["queued", "running", "ok"]


async def test_cancelling_a_queued_creation_ends_it_and_its_client(sessions: SessionFactory, vault: Vault) -> None:
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session), status=ClientStatus.CREATING)
        operation = await make_operation(
            session, kind=OperationKind.CREATE_CLIENT, client_id=client.id, server_id=client.server_id
        )
    async with sessions.begin() as session:
        cancelled = await control.cancel(session, operation.id)
        assert cancelled.state == OperationState.CANCELLED
    async with sessions() as session:
        assert (await session.get_one(Client, client.id)).status == ClientStatus.FAILED
        with pytest.raises(NotCancellableError):
            await control.cancel(session, operation.id)


async def test_retry_makes_a_new_operation_once(sessions: SessionFactory, vault: Vault) -> None:
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session), status=ClientStatus.FAILED)
        operation = await make_operation(
            session, kind=OperationKind.CREATE_CLIENT, client_id=client.id, server_id=client.server_id
        )
    held = await must_claim(sessions, operation.id)
    async with sessions.begin() as session:
        with pytest.raises(NotRetryableError):
            await control.retry(session, operation.id, Caller())
    await finish(sessions, held, OperationState.ERROR)
    async with sessions.begin() as session:
        again = await control.retry(session, operation.id, Caller("anna"))
        assert again.retry_of == operation.id
    async with sessions.begin() as session:
        assert (await session.get_one(Client, client.id)).status == ClientStatus.CREATING
        with pytest.raises(NotRetryableError):
            await control.retry(session, operation.id, Caller())


async def test_due_lists_heads_and_the_abandoned(sessions: SessionFactory, vault: Vault) -> None:
    async with sessions.begin() as session:
        server = await make_server(session, max_parallel=1)
        first = await make_client(session, vault, server)
        heads = [
            await make_operation(session, client_id=first.id, server_id=server.id, params={"n": n}) for n in range(3)
        ]
        lost = await make_operation(session, server_id=(await make_server(session)).id)
    await must_claim(sessions, lost.id, lease_s=0.01)
    await asyncio.sleep(0.05)
    async with sessions() as session:
        assert dict(await operations.due(session)) == {heads[0].id: 0, lost.id: 1}
    async with sessions() as session:
        assert (await session.get_one(Operation, lost.id)).state == OperationState.RUNNING


# Operations on two servers


@dataclass(frozen=True)
class Two:
    """Two servers, and a client on the first that goes to the second."""

    sessions: SessionFactory
    client_id: int
    here: int
    there: int

    async def move(self) -> UUID:
        return await self.on(self.here, client_id=self.client_id, other_server_id=self.there)

    async def on(self, server_id: int, **values: Any) -> UUID:
        """An operation on a server."""
        async with self.sessions.begin() as session:
            return (await make_operation(session, server_id=server_id, **values)).id


@pytest.fixture
async def two(sessions: SessionFactory, vault: Vault) -> Two:
    async with sessions.begin() as session:
        here, there = await make_server(session, max_parallel=2), await make_server(session, max_parallel=2)
        client = await make_client(session, vault, here)
        return Two(sessions, client.id, here.id, there.id)


@pytest.mark.parametrize("end", ["here", "there"])
async def test_what_works_on_two_servers_waits_for_what_has_either_alone(two: Two, end: str) -> None:
    alone = await two.on(getattr(two, end), exclusive=True)
    holding = await must_claim(two.sessions, alone)
    move = await two.move()
    assert await claim(two.sessions, move) is None
    await finish(two.sessions, holding)
    await must_claim(two.sessions, move)


@pytest.mark.parametrize("end", ["here", "there"])
async def test_what_wants_a_server_alone_waits_for_what_works_on_two(two: Two, end: str) -> None:
    moving = await must_claim(two.sessions, await two.move())
    alone = await two.on(getattr(two, end), exclusive=True)
    later = await two.on(getattr(two, end))
    assert await claim(two.sessions, alone) is None
    assert await claim(two.sessions, later) is None, "it came behind"
    await finish(two.sessions, moving)
    await must_claim(two.sessions, alone)


@pytest.mark.parametrize("end", ["here", "there"])
async def test_what_waits_for_a_server_alone_holds_back_a_later_move(two: Two, end: str) -> None:
    running = await must_claim(two.sessions, await two.on(getattr(two, end)))
    await two.on(getattr(two, end), exclusive=True)
    move = await two.move()
    assert await claim(two.sessions, move) is None
    await finish(two.sessions, running)
    assert await claim(two.sessions, move) is None


async def test_what_has_a_third_server_alone_holds_nobody_back(two: Two) -> None:
    async with two.sessions.begin() as session:
        third = (await make_server(session)).id
    await must_claim(two.sessions, await two.on(third, exclusive=True))
    await must_claim(two.sessions, await two.move())


@pytest.mark.parametrize("end", ["here", "there"])
async def test_what_works_on_two_servers_has_a_slot_of_each(two: Two, end: str) -> None:
    server_id = getattr(two, end)
    held = [await must_claim(two.sessions, await two.on(server_id)) for _ in range(2)]
    move = await two.move()
    assert await claim(two.sessions, move) is None
    await finish(two.sessions, held[0])
    await must_claim(two.sessions, move)
    assert await claim(two.sessions, await two.on(server_id)) is None, "one runs, and the move"
    await finish(two.sessions, held[1])
    await must_claim(two.sessions, await two.on(server_id))


async def test_moves_against_each_other_are_never_both_over_the_limit(two: Two, vault: Vault) -> None:
    async with two.sessions.begin() as session:
        servers = [await session.get_one(Server, server_id) for server_id in (two.here, two.there)]
        made = []
        for number in range(8):
            source, target = servers[number % 2], servers[1 - number % 2]
            client = await make_client(session, vault, source)
            operation = await make_operation(
                session, client_id=client.id, server_id=source.id, other_server_id=target.id
            )
            made.append(operation.id)
    found = await asyncio.gather(*(claim(two.sessions, operation_id) for operation_id in made))
    assert len([one for one in found if one is not None]) == 2
