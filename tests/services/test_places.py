"""What clients have on servers that are not their own, and the moment when that changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import ServerFullError
from alfa_cloud.models import Client, Operation, Place, Server
from alfa_cloud.profile import Keeping
from alfa_cloud.services import clients, operations, places
from alfa_cloud.specs import OperationState
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_operation, make_place, make_server

KEEPING = Keeping(source_days=7, forward_days=14)
FIRST = 30000


@dataclass(frozen=True)
class Way:
    """A client on one server, and a place for it on another one, whose ports are six."""

    sessions: SessionFactory
    client_id: int
    source_id: int
    target_id: int

    async def client(self) -> Client:
        async with self.sessions() as session:
            return await session.get_one(Client, self.client_id)

    async def place(self, server_id: int) -> Place | None:
        async with self.sessions() as session:
            return await session.get(Place, (self.client_id, server_id))

    async def must_place(self, server_id: int) -> Place:
        found = await self.place(server_id)
        assert found is not None
        return found

    async def reserve(self, busy: set[int] | None = None) -> Place:
        async with self.sessions.begin() as session:
            client = await session.get_one(Client, self.client_id)
            server = await session.get_one(Server, self.target_id, with_for_update=True)
            return await places.reserve(session, client, server, busy or set())

    async def change_over(self, server_id: int) -> None:
        async with self.sessions.begin() as session:
            await places.change_over(session, self.client_id, server_id, KEEPING)

    async def now(self) -> datetime:
        async with self.sessions() as session:
            return await operations.database_now(session)


@pytest.fixture
async def way(sessions: SessionFactory, vault: Vault) -> Way:
    async with sessions.begin() as session:
        source = await make_server(session)
        target = await make_server(session, layout={"first_port": FIRST, "last_port": FIRST + 5})
        client = await make_client(session, vault, source, port=21000, spare_port=21001, slot="b")
        return Way(sessions, client.id, source.id, target.id)


# A place is reserved


async def test_a_place_is_empty_and_on_its_way(way: Way) -> None:
    place = await way.reserve()
    assert (place.slot, place.image_ref) == ("a", "alfa:1.0.0-master")
    assert (place.kept, place.keep_until, place.forward_until) == (False, None, None)
    assert (place.port, place.spare_port) == (FIRST, FIRST + 1)


async def test_no_port_is_given_twice(way: Way, vault: Vault) -> None:
    async with way.sessions.begin() as session:
        server = await session.get_one(Server, way.target_id)
        await make_client(session, vault, server, port=FIRST, spare_port=None)
        stranger = await make_client(session, vault, await make_server(session))
        await make_place(session, stranger, server, port=FIRST + 2, spare_port=FIRST + 3)
    place = await way.reserve(busy={FIRST + 1})
    assert {place.port, place.spare_port} == {FIRST + 4, FIRST + 5}
    async with way.sessions.begin() as session:
        server = await session.get_one(Server, way.target_id, with_for_update=True)
        with pytest.raises(ServerFullError):
            await clients.free_ports(session, server, set(), 2)


async def test_a_place_that_is_there_keeps_its_ports_and_loses_its_meaning(way: Way) -> None:
    async with way.sessions.begin() as session:
        client, server = await session.get_one(Client, way.client_id), await session.get_one(Server, way.target_id)
        await make_place(session, client, server, port=FIRST + 2, spare_port=FIRST + 3, slot="b", image_ref="alfa:old")
    place = await way.reserve(busy={FIRST + 2})
    assert (place.port, place.spare_port) == (FIRST + 2, FIRST + 3)
    assert (place.slot, place.image_ref, place.kept) == ("a", "alfa:1.0.0-master", False)
    assert not places.is_way_back(place, await way.now())


# The client's row says the other server


async def test_the_client_has_the_place_and_leaves_its_own(way: Way) -> None:
    reserved = await way.reserve()
    before = await way.now()
    await way.change_over(way.target_id)
    client, left = await way.client(), await way.must_place(way.source_id)
    assert (client.server_id, client.slot) == (way.target_id, "a")
    assert (client.port, client.spare_port) == (reserved.port, reserved.spare_port)
    assert await way.place(way.target_id) is None
    assert (left.slot, left.port, left.spare_port, left.image_ref) == ("b", 21000, 21001, "alfa:1.0.0-master")
    assert left.kept is True
    for until, days in ((left.keep_until, KEEPING.source_days), (left.forward_until, KEEPING.forward_days)):
        assert until is not None
        assert timedelta(0) <= until - before - timedelta(days=days) < timedelta(minutes=1)
    assert places.is_way_back(left, before)
    assert not places.is_way_back(left, before + timedelta(days=8))


async def test_the_moment_comes_once(way: Way) -> None:
    await way.reserve()
    await way.change_over(way.target_id)
    first = await way.must_place(way.source_id)
    await way.change_over(way.target_id)
    again = await way.must_place(way.source_id)
    assert (again.keep_until, again.port, again.slot) == (first.keep_until, first.port, first.slot)


async def test_there_and_back_leaves_the_client_as_it_was(way: Way) -> None:
    before = await way.client()
    reserved = await way.reserve()
    await way.change_over(way.target_id)
    await way.change_over(way.source_id)
    after, left = await way.client(), await way.must_place(way.target_id)
    for name in ("server_id", "slot", "port", "spare_port", "image_ref", "version"):
        assert getattr(after, name) == getattr(before, name), name
    assert (left.port, left.kept) == (reserved.port, True)
    assert await way.place(way.source_id) is None


async def test_the_way_back_leads_to_what_ran_there(way: Way) -> None:
    await way.reserve()
    await way.change_over(way.target_id)
    async with way.sessions.begin() as session:
        client = await session.get_one(Client, way.client_id)
        client.image_ref, client.version = "alfa:2.0.0-master", "2.0.0-master"
    await way.change_over(way.source_id)
    client, left = await way.client(), await way.must_place(way.target_id)
    assert (client.image_ref, client.version) == ("alfa:1.0.0-master", "1.0.0-master")
    assert left.image_ref == "alfa:2.0.0-master"


async def test_what_waits_follows_the_client_and_what_runs_or_ended_does_not(way: Way, vault: Vault) -> None:
    await way.reserve()

    async def operation(session: Any, state: OperationState, **values: Any) -> UUID:
        made = await make_operation(session, **{"client_id": way.client_id, "server_id": way.source_id, **values})
        made.state = state
        return made.id

    async with way.sessions.begin() as session:
        stranger = await make_client(session, vault, await session.get_one(Server, way.source_id))
        elsewhere = (await make_server(session)).id
        waits = await operation(session, OperationState.QUEUED)
        others = {
            await operation(session, OperationState.RUNNING): way.source_id,
            await operation(session, OperationState.OK): way.source_id,
            await operation(session, OperationState.QUEUED, client_id=stranger.id): way.source_id,
            await operation(session, OperationState.QUEUED, client_id=None): way.source_id,
            await operation(session, OperationState.QUEUED, server_id=elsewhere): elsewhere,
        }
    await way.change_over(way.target_id)
    async with way.sessions() as session:
        rows = (await session.execute(select(Operation.id, Operation.server_id))).all()
    assert {row.id: row.server_id for row in rows} == {waits: way.target_id, **others}


# What is left goes


async def test_what_is_left_of_a_client_that_did_not_get_there_may_go_now(way: Way) -> None:
    await way.reserve()
    async with way.sessions.begin() as session:
        await places.release(session, way.client_id, way.target_id)
    place, now = await way.must_place(way.target_id), await way.now()
    assert place.keep_until is not None
    assert place.forward_until is not None
    assert max(place.keep_until, place.forward_until) <= now
    assert not places.is_way_back(place, now - timedelta(days=1))


async def test_what_is_kept_is_not_released(way: Way) -> None:
    await way.reserve()
    await way.change_over(way.target_id)
    before = await way.must_place(way.source_id)
    async with way.sessions.begin() as session:
        await places.release(session, way.client_id, way.source_id)
    assert (await way.must_place(way.source_id)).keep_until == before.keep_until


@pytest.mark.parametrize("again", [True, False])
async def test_what_is_gone_is_forgotten_unless_the_client_is_on_its_way_there_again(way: Way, *, again: bool) -> None:
    async with way.sessions.begin() as session:
        client, server = await session.get_one(Client, way.client_id), await session.get_one(Server, way.target_id)
        await make_place(session, client, server)
    if again:
        await way.reserve()
    async with way.sessions.begin() as session:
        await places.data_is_gone(session, way.client_id, way.target_id)
        await places.forget(session, way.client_id, way.target_id)
    assert (await way.place(way.target_id) is not None) == again


async def test_without_its_data_a_place_is_no_way_back(way: Way) -> None:
    await way.reserve()
    await way.change_over(way.target_id)
    async with way.sessions.begin() as session:
        await places.data_is_gone(session, way.client_id, way.source_id)
    place = await way.must_place(way.source_id)
    assert (place.kept, places.is_way_back(place, await way.now())) == (False, False)
    assert not places.is_way_back(None, await way.now())
