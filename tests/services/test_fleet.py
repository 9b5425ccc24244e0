"""Fleet commands: which children come when, how the parent ends, what it shows; workers are played by the test."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.broker import Broker
from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import NotCancellableError, NotRetryableError
from alfa_cloud.jobs.reconciler import advance_fleets, reconcile
from alfa_cloud.models import Client, Operation, OperationLine, OperationStep
from alfa_cloud.services import control, fleet, fleet_commands, images, operations
from alfa_cloud.services.fleet_course import Limits
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_operation, make_server

KIND = OperationKind.ENABLE_MAINTENANCE_ALL
ERROR = {"code": "command_failed", "message": "It is broken.", "step": "Virtual host"}


class Fleet:
    """A server with clients, and hands that do what workers do."""

    def __init__(self, sessions: SessionFactory, vault: Vault) -> None:
        self.sessions = sessions
        self.vault = vault
        self.server_id = 0
        self.names: list[str] = []

    async def make(self, count: int, max_parallel: int = 4) -> None:
        """So many clients that are alive, and one that is not."""
        async with self.sessions.begin() as session:
            server = await make_server(session, max_parallel=max_parallel)
            self.server_id = server.id
            self.names = [(await make_client(session, self.vault, server)).name for _ in range(count)]
            await make_client(session, self.vault, server, status=ClientStatus.FAILED)

    async def ask(self, kind: OperationKind = KIND, *, filters: dict[str, str] | None = None, **limits: Any) -> UUID:
        """A command on all clients."""
        async with self.sessions.begin() as session:
            operation = await fleet_commands.on_clients(
                session, self.server_id, kind, Caller("anna", "r-1"), limits=Limits(**limits), filters=filters
            )
            return operation.id

    async def children(self, parent_id: UUID, *states: str) -> list[Operation]:
        """The children in the order they were made."""
        query = select(Operation).where(Operation.parent_id == parent_id).order_by(Operation.created_at, Operation.id)
        if states:
            query = query.where(Operation.state.in_(states))
        async with self.sessions() as session:
            return list(await session.scalars(query))

    async def begin(self, child_id: UUID) -> operations.Claim:
        """A worker claims a child."""
        async with self.sessions.begin() as session:
            claim = await operations.claim(session, child_id, "worker", 30)
        assert claim is not None
        return claim

    async def end(self, claim: operations.Claim, state: OperationState = OperationState.OK) -> None:
        """A worker ends a child, and dies before it says so."""
        async with self.sessions.begin() as session:
            await operations.finish(session, claim, state, error=None if state is OperationState.OK else ERROR)

    async def advance(self, parent_id: UUID) -> list[UUID]:
        """The call at a child's end."""
        async with self.sessions.begin() as session:
            return await fleet.advance(session, parent_id)

    async def work(self, parent_id: UUID, *states: OperationState) -> None:
        """The oldest queued children run, one after the other, and end so."""
        for state in states:
            child = (await self.children(parent_id, "queued"))[0]
            await self.end(await self.begin(child.id), state)
            await self.advance(parent_id)

    async def read(self, operation_id: UUID) -> Operation:
        """The operation as it is."""
        async with self.sessions() as session:
            return await session.get_one(Operation, operation_id)

    async def log(self, operation_id: UUID) -> list[str]:
        """Its log; `seq` has no gap."""
        query = select(OperationLine).where(OperationLine.operation_id == operation_id).order_by(OperationLine.seq)
        async with self.sessions() as session:
            lines = list(await session.scalars(query))
            parent = await session.get_one(Operation, operation_id)
        assert [line.seq for line in lines] == list(range(1, parent.last_seq + 1))
        return [line.text for line in lines]

    async def rows(self, parent_id: UUID) -> list[tuple[str, str]]:
        """The state of each target."""
        result = (await self.read(parent_id)).result
        assert result is not None
        return [(row["name"], row["state"]) for row in result["rows"]]


@pytest.fixture
def servers(sessions: SessionFactory, vault: Vault) -> Fleet:
    return Fleet(sessions, vault)


async def deploy(session: AsyncSession, servers: Fleet) -> Operation:
    """A deployment of the server."""
    given: dict[str, Any] = {"images": (), "repository": "alfa", "restart_all": False, "run_migrate": False}
    return await fleet_commands.deploy(session, servers.server_id, Caller(), limits=Limits(), **given)


OK, FAILED, CANCELLED = OperationState.OK, OperationState.ERROR, OperationState.CANCELLED


async def test_children_come_as_room_is_made(servers: Fleet) -> None:
    await servers.make(5)
    parent_id = await servers.ask(max_parallel=2)
    parent = await servers.read(parent_id)
    assert (parent.state, parent.lease_until, parent.params["targets"]) == ("running", None, parent.params["targets"])
    assert len(await servers.children(parent_id)) == 2
    assert await servers.advance(parent_id) == []
    await servers.work(parent_id, OK)
    first, *others = await servers.children(parent_id)
    assert (first.state, len(others)) == ("ok", 2)
    assert (first.actor, first.request_id, first.kind) == ("anna", "r-1", "enable_maintenance")
    assert (await servers.read(parent_id)).progress == pytest.approx(0.2)
    await servers.work(parent_id, OK, OK, OK, OK)
    parent = await servers.read(parent_id)
    assert (parent.state, parent.error, parent.progress) == ("ok", None, 1.0)
    assert await servers.rows(parent_id) == [(name, "ok") for name in servers.names]
    lines = await servers.log(parent_id)
    assert lines[0].startswith(f"{servers.names[0]}: started (operation ")
    assert lines[1] == f"{servers.names[0]}: ok"
    assert lines[-1] == "ok"
    async with servers.sessions() as session:
        steps = list(await session.scalars(select(OperationStep).order_by(OperationStep.position)))
    assert [(step.name, step.title, step.state) for step in steps] == [
        ("client", name, "done") for name in servers.names
    ]
    assert all(step.started_at and step.finished_at for step in steps)


async def test_the_default_is_the_servers_own(servers: Fleet) -> None:
    await servers.make(5, max_parallel=3)
    assert len(await servers.children(await servers.ask())) == 3


async def test_a_failed_child_fails_the_parent_and_a_retry_does_it_alone(servers: Fleet) -> None:
    await servers.make(3)
    parent_id = await servers.ask()
    await servers.work(parent_id, OK, FAILED, OK)
    parent = await servers.read(parent_id)
    assert parent.error is not None
    assert (parent.state, parent.error["code"], parent.error["step"]) == (
        "error",
        "some_children_failed",
        servers.names[1],
    )
    assert parent.error["message"].startswith(f"1 of 3 failed ({servers.names[1]})")
    assert f"{servers.names[1]}: error in “Virtual host”: It is broken." in await servers.log(parent_id)
    result = parent.result or {}
    assert result["rows"][1]["error"] == ERROR
    assert result["counts"] == {"queued": 0, "running": 0, "ok": 2, "error": 1, "cancelled": 0, "total": 3}
    async with servers.sessions.begin() as session:
        again = await control.retry(session, parent_id, Caller("boris"))
        assert (again.retry_of, again.actor) == (parent_id, "boris")
    async with servers.sessions.begin() as session:
        with pytest.raises(NotRetryableError):
            await control.retry(session, parent_id, Caller())
    assert await servers.rows(again.id) == [(servers.names[1], "queued")]
    await servers.work(again.id, OK)
    assert (await servers.read(again.id)).state == "ok"


async def test_nothing_to_do_ends_at_once(servers: Fleet) -> None:
    await servers.make(0)
    parent_id = await servers.ask()
    parent = await servers.read(parent_id)
    assert (parent.state, parent.progress) == ("ok", 1.0)
    assert await servers.log(parent_id) == ["There is nothing to do this for.", "ok"]


async def test_filters_choose_and_only_the_living_count(servers: Fleet) -> None:
    await servers.make(3)
    async with servers.sessions.begin() as session:
        client = (await session.scalars(select(Client).where(Client.name == servers.names[1]))).one()
        client.demo = True
    assert await servers.rows(await servers.ask(filters={"demo": "true"})) == [(servers.names[1], "queued")]
    assert await servers.rows(await servers.ask(filters={"status": "failed"})) == []


async def test_canaries_go_alone(servers: Fleet) -> None:
    await servers.make(6)
    parent_id = await servers.ask(canary_count=2)
    assert len(await servers.children(parent_id)) == 2
    await servers.work(parent_id, OK)
    assert len(await servers.children(parent_id)) == 2
    await servers.work(parent_id, OK)
    assert len(await servers.children(parent_id)) == 6


@pytest.mark.parametrize("second_runs", [True, False])
async def test_a_failed_canary_holds_back_the_rest(servers: Fleet, second_runs: bool) -> None:
    await servers.make(6)
    parent_id = await servers.ask(canary_count=2)
    first, second = await servers.children(parent_id)
    other = await servers.begin(second.id) if second_runs else None
    await servers.end(await servers.begin(first.id), FAILED)
    await servers.advance(parent_id)
    if other is not None:
        assert (await servers.read(parent_id)).state == "running"
        await servers.end(other)
        await servers.advance(parent_id)
    states = [state for _, state in await servers.rows(parent_id)]
    assert states == ["error", "ok" if second_runs else "cancelled", *["cancelled"] * 4]
    parent = await servers.read(parent_id)
    assert (parent.state, (parent.error or {})["code"]) == ("error", "some_children_failed")
    assert len(await servers.children(parent_id)) == 2
    assert ((parent.result or {})["rows"][5]["error"] or {})["code"] == "not_started"
    async with servers.sessions.begin() as session:
        again = await control.retry(session, parent_id, Caller())
    assert len(await servers.rows(again.id)) == (5 if second_runs else 6)


async def test_past_max_failures_nothing_starts(servers: Fleet) -> None:
    await servers.make(8)
    parent_id = await servers.ask(max_failures=1, max_parallel=2)
    await servers.work(parent_id, FAILED, OK)
    held = await servers.begin((await servers.children(parent_id, "queued"))[0].id)
    await servers.work(parent_id, FAILED)
    assert len(await servers.children(parent_id)) == 4
    assert (await servers.read(parent_id)).state == "running"
    await servers.end(held)
    await servers.advance(parent_id)
    assert Counter(state for _, state in await servers.rows(parent_id)) == {"error": 2, "ok": 2, "cancelled": 4}
    assert (await servers.read(parent_id)).state == "error"


async def test_a_cancelled_parent_waits_for_what_runs(servers: Fleet) -> None:
    await servers.make(5)
    parent_id = await servers.ask(max_parallel=2)
    running, queued = await servers.children(parent_id)
    held = await servers.begin(running.id)
    async with servers.sessions.begin() as session:
        cancelled = await control.cancel(session, parent_id)
        assert cancelled.state == "running"
    assert (await servers.read(queued.id)).state == "cancelled"
    await servers.end(held)
    await servers.advance(parent_id)
    parent = await servers.read(parent_id)
    assert (parent.state, (parent.error or {})["code"]) == ("cancelled", "cancelled")
    assert [state for _, state in await servers.rows(parent_id)] == ["ok", *["cancelled"] * 4]
    async with servers.sessions.begin() as session:
        with pytest.raises(NotCancellableError):
            await control.cancel(session, parent_id)
        again = await control.retry(session, parent_id, Caller())
    assert [name for name, _ in await servers.rows(again.id)] == servers.names[1:]


async def test_a_parent_of_queued_children_is_cancelled_at_once(servers: Fleet) -> None:
    await servers.make(3)
    parent_id = await servers.ask()
    async with servers.sessions.begin() as session:
        assert (await control.cancel(session, parent_id)).state == "cancelled"
    assert {child.state for child in await servers.children(parent_id)} == {"cancelled"}


async def test_a_cancelled_child_makes_room(servers: Fleet) -> None:
    await servers.make(2)
    parent_id = await servers.ask(max_parallel=1)
    (first,) = await servers.children(parent_id)
    async with servers.sessions.begin() as session:
        assert (await control.cancel(session, first.id)).state == "cancelled"
    assert len(await servers.children(parent_id)) == 2
    await servers.work(parent_id, OK)
    assert (await servers.read(parent_id)).state == "error"


async def test_a_target_that_is_gone_meanwhile_is_an_error_of_its_own(servers: Fleet) -> None:
    await servers.make(3)
    parent_id = await servers.ask(max_parallel=1)
    async with servers.sessions.begin() as session:
        client = (await session.scalars(select(Client).where(Client.name == servers.names[1]))).one()
        client.status = ClientStatus.ARCHIVED
    await servers.work(parent_id, OK, OK)
    assert await servers.rows(parent_id) == list(zip(servers.names, ["ok", "error", "ok"], strict=True))
    assert f"{servers.names[1]}: error: The client is archived." in await servers.log(parent_id)


async def test_an_equal_command_is_the_same_one(servers: Fleet) -> None:
    await servers.make(2)
    asked = await asyncio.gather(*(servers.ask() for _ in range(10)))
    assert len(set(asked)) == 1
    assert len(await servers.children(asked[0])) == 2
    assert await servers.ask(max_parallel=1) != asked[0]
    async with servers.sessions.begin() as session:
        deployed = [await deploy(session, servers) for _ in range(2)]
    assert deployed[0].id == deployed[1].id


async def test_calls_at_once_make_each_child_once(servers: Fleet) -> None:
    await servers.make(30)
    parent_id = await servers.ask(max_parallel=8)
    for child in await servers.children(parent_id):
        await servers.end(await servers.begin(child.id)) if child.id.int % 2 else None
    started = await asyncio.gather(*(servers.advance(parent_id) for _ in range(20)))
    made = await servers.children(parent_id)
    assert len({child.client_id for child in made}) == len(made)
    assert len([child for child in made if child.state == "queued"]) == 8
    assert sorted(child_id for ids in started for child_id in ids) == sorted(child.id for child in made[8:])


async def test_the_reconciler_repairs_a_lost_call(servers: Fleet, redis_url: str) -> None:
    await servers.make(2)
    parent_id = await servers.ask(max_parallel=1)
    broker = Broker(redis_url)
    for _ in range(2):
        await servers.end(await servers.begin((await servers.children(parent_id, "queued"))[0].id))
        await reconcile(servers.sessions, broker, "worker")
    assert (await servers.read(parent_id)).state == "ok"
    await broker.close()


async def test_a_deployment_prepares_the_server_first(servers: Fleet) -> None:
    await servers.make(2)
    async with servers.sessions.begin() as session:
        operation = await deploy(session, servers)
    (first,) = await servers.children(operation.id)
    assert (first.kind, first.exclusive) == ("prepare_server", True)
    await servers.work(operation.id, FAILED)
    assert [state for _, state in await servers.rows(operation.id)] == ["error", "cancelled", "cancelled"]
    async with servers.sessions.begin() as session:
        again = await control.retry(session, operation.id, Caller())
    await servers.work(again.id, OK)
    first, second = await servers.children(again.id)
    assert (second.kind, second.params) == (
        "deploy_client",
        {"image_ref": "alfa:1.0.0-master", "restart": False, "run_migrate": False},
    )
    await servers.work(again.id, FAILED, OK)
    async with servers.sessions.begin() as session:
        third = await control.retry(session, again.id, Caller())
    assert [name for name, _ in await servers.rows(third.id)][1:] == servers.names[:1]


async def test_pruning_takes_all_servers_at_once(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        made = [await make_server(session) for _ in range(3)]
        operation = await fleet_commands.prune(session, None, Caller(), limits=Limits())
        one = await fleet_commands.prune(session, made[1].id, Caller(), limits=Limits())
    async with sessions() as session:
        children = list(await session.scalars(select(Operation).where(Operation.parent_id == operation.id)))
        assert {(child.kind, child.exclusive) for child in children} == {("prune_server", True)}
        assert {child.server_id for child in children} == {server.id for server in made}
        assert await session.scalar(select(func.count()).where(Operation.parent_id == one.id)) == 1


async def test_what_clients_and_operations_need_is_not_pruned(sessions: SessionFactory, vault: Vault) -> None:
    async with sessions.begin() as session:
        server, other = await make_server(session), await make_server(session)
        values = {"image_ref": "alfa:2-master", "former_image_ref": "alfa:1-master"}
        client = await make_client(session, vault, server, **values)
        await make_client(session, vault, server, image_ref="alfa:0-gone", status=ClientStatus.ARCHIVED)
        await make_client(session, vault, other, image_ref="alfa:0-elsewhere")
        await make_operation(
            session, server_id=other.id, params={"child": {"image_ref": "alfa:3-dev"}, "n": [1, "4-dev"]}
        )
        done = await make_operation(
            session, client_id=client.id, server_id=server.id, locks_client=False, params={"image_ref": "alfa:0-done"}
        )
        claim = await operations.claim(session, done.id, "worker", 30)
        assert claim is not None
        await operations.finish(session, claim, OperationState.OK)
    async with sessions() as session:
        found = await images.needed(session, server.id, "alfa")
    assert found == {
        "alfa:1-master", "alfa:2-master", "alfa:3-dev", "alfa:4-dev",
    }  # fmt: skip


async def test_a_parent_holds_no_lock_and_no_slot(servers: Fleet) -> None:
    await servers.make(2, max_parallel=1)
    parent_id = await servers.ask()
    async with servers.sessions.begin() as session:
        assert await operations.claim(session, parent_id, "worker", 30) is None
        alone = await make_operation(session, server_id=servers.server_id, exclusive=True)
    await servers.work(parent_id, OK)
    held = await servers.begin(alone.id)
    await servers.end(held)


@pytest.mark.parametrize("seed", range(12))
async def test_any_course_ends_soundly(servers: Fleet, seed: int) -> None:
    """Random ends, lost calls, cancels: each client once at most, never too many at once, and an end."""
    chance = random.Random(seed)
    await servers.make(chance.randint(1, 12))
    most = chance.randint(1, 5)
    limits: dict[str, Any] = {"canary_count": chance.choice([0, 0, 2]), "max_failures": chance.choice([None, 0, 2])}
    parent_id = await servers.ask(max_parallel=most, **limits)
    running: list[operations.Claim] = []
    for _ in range(200):
        if (await servers.read(parent_id)).state != "running":
            break
        queued = await servers.children(parent_id, "queued")
        assert len(queued) + len(running) <= most
        action = chance.random()
        if queued and action < 0.45:
            child_id = chance.choice(queued).id
            async with servers.sessions.begin() as session:
                claim = await operations.claim(session, child_id, "worker", 30)
            running += [claim] if claim else []
        elif running and action < 0.9:
            claim = running.pop(chance.randrange(len(running)))
            await servers.end(claim, chance.choice([OK, OK, FAILED, CANCELLED]))
        elif action < 0.92:
            async with servers.sessions.begin() as session:
                await control.cancel(session, parent_id)
        if chance.random() < 0.5:
            await servers.advance(parent_id)
        elif chance.random() < 0.3:
            await advance_fleets(servers.sessions)
    for claim in running:
        await servers.end(claim)
    await advance_fleets(servers.sessions)
    parent, children = await servers.read(parent_id), await servers.children(parent_id)
    assert OperationState(parent.state).terminal
    assert len({child.client_id for child in children}) == len(children)
    assert all(OperationState(child.state).terminal for child in children)
    rows = (parent.result or {})["rows"]
    assert {row["operation_id"]: row["state"] for row in rows if row["operation_id"]} == {
        str(child.id): child.state for child in children
    }
    assert (parent.state == "ok") == all(row["state"] == "ok" for row in rows) or parent.state == "cancelled"
    assert len(await servers.log(parent_id)) > 0
