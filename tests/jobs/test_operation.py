"""One operation from claim to end, on a host that is told what to answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

import pytest
from sqlalchemy import select, update

from alfa_cloud.broker import Broker
from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import CommandFailedError, NotRetryableError
from alfa_cloud.jobs.operation import MAX_ATTEMPTS, Engine, Limits, _interrupted, run_operation
from alfa_cloud.models import Client, Operation, OperationLine, OperationStep
from alfa_cloud.playbooks.playbook import name_of
from alfa_cloud.profile import MailProfile, Profile
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.services import backups, clients, control, letters, operations
from alfa_cloud.services.operations import Caller
from alfa_cloud.services.outcomes import Ended, apply
from alfa_cloud.services.plans.make import make_plan
from alfa_cloud.services.plans.plan import Tools, Work
from alfa_cloud.specs import AppProfile, ClientStatus, OperationKind, OperationState, Secret
from alfa_cloud.vault import Vault
from tests.factories import make_client, make_operation, make_server
from tests.fakes import FakeHost
from tests.system import free_port


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def engine(sessions: SessionFactory, redis_url: str, vault: Vault, host: FakeHost) -> Engine:
    return Engine(
        worker="test",
        sessions=sessions,
        broker=Broker(redis_url),
        vault=vault,
        profile=Profile(AppProfile(health_deadline_s=0.1), min_free_bytes=0),
        limits=Limits(lease_s=5, heartbeat_s=1, retry_delays_s=(0.01,)),
        open_host=lambda *_: host,
        probe=AsyncMock(),
    )


async def unborn(
    sessions: SessionFactory, vault: Vault, kind: OperationKind, params: Any = None, **values: Any
) -> tuple[int, UUID]:
    """A client that never came to life, and an operation on it."""
    async with sessions.begin() as session:
        server = await make_server(session)
        client = await make_client(session, vault, server, status=ClientStatus.CREATING, **values)
        given = {} if params is None else {"params": params}
        operation = await make_operation(session, kind=kind, client_id=client.id, server_id=server.id, **given)
        client.operation_id = operation.id
        return client.id, operation.id


async def state_of(sessions: SessionFactory, operation_id: UUID) -> Operation:
    async with sessions() as session:
        return await session.get_one(Operation, operation_id)


async def test_a_failed_creation_makes_its_client_failed(
    sessions: SessionFactory, vault: Vault, engine: Engine, host: FakeHost
) -> None:
    host.answer = lambda command: Result(1) if "version" in command.argv else None
    client_id, operation_id = await unborn(sessions, vault, OperationKind.CREATE_CLIENT)
    await run_operation(engine, operation_id)
    operation = await state_of(sessions, operation_id)
    assert operation.state == OperationState.ERROR
    assert operation.error is not None
    assert operation.error["code"] == "docker_unavailable"
    assert (operation.lease_until, operation.finished_at is None) == (None, False)
    async with sessions() as session:
        assert (await session.get_one(Client, client_id)).status == ClientStatus.FAILED


async def came_to_life(sessions: SessionFactory, vault: Vault, **params: Any) -> tuple[int, UUID]:
    """A client whose deletion was asked for while its creation ran; the creation ended well first."""
    client_id, operation_id = await unborn(sessions, vault, OperationKind.DELETE_CLIENT, params)
    async with sessions.begin() as session:
        client = await session.get_one(Client, client_id)
        client.status, client.activated_at = ClientStatus.DELETING, await operations.database_now(session)
    return client_id, operation_id


async def deletion_of(sessions: SessionFactory, engine: Engine, operation_id: UUID) -> tuple[list[str], int | None]:
    """The steps of a deletion by name, and how many of them come before anything is removed."""
    async with sessions() as session:
        operation = await session.get_one(Operation, operation_id)
        tools = Tools(sessions, engine.vault, engine.profile, lambda _: FakeHost())
        playbook = (await make_plan(session, Work.of(operation, engine.vault), tools)).playbook
    return [name_of(step) for step in playbook.steps], playbook.no_return


async def test_a_deletion_that_meets_a_client_that_came_to_life_archives_it_first(
    sessions: SessionFactory, vault: Vault, engine: Engine, host: FakeHost
) -> None:
    client_id, operation_id = await came_to_life(sessions, vault)
    steps, before = await deletion_of(sessions, engine, operation_id)
    assert steps[:before] == [
        "check_ownership", "check_dump_space", "show_page", "wait_quiet", "stop_client",
        "drop_on_failure", "ensure_dump", "ensure_files_archive", "seal_backup",
    ]  # fmt: skip
    await run_operation(engine, operation_id)
    operation = await state_of(sessions, operation_id)
    assert operation.error is not None
    assert (operation.error["code"], operation.result) == ("not_ours", None), "this host knows no such client"
    words = {word for command in host.commands for word in command.argv}
    assert words & {"rm", "rmdir", "down", "stop", "mv"} == set()
    async with sessions() as session:
        assert (await session.get_one(Client, client_id)).status == ClientStatus.ACTIVE


async def test_a_deletion_without_an_archive_makes_none(sessions: SessionFactory, vault: Vault, engine: Engine) -> None:
    _, operation_id = await came_to_life(sessions, vault, keep_archive=False)
    steps, before = await deletion_of(sessions, engine, operation_id)
    assert before == 0
    assert not {"ensure_dump", "seal_backup"} & set(steps)


@pytest.mark.parametrize("archived", [True, False])
async def test_a_deletion_that_failed_is_tried_again_with_an_archive_alone(
    sessions: SessionFactory, vault: Vault, engine: Engine, *, archived: bool
) -> None:
    client_id, operation_id = await came_to_life(sessions, vault, **({} if archived else {"keep_archive": False}))
    await run_operation(engine, operation_id)
    async with sessions.begin() as session:
        if archived:
            assert (await control.retry(session, operation_id, Caller())).params == {}
            assert (await session.get_one(Client, client_id)).status == ClientStatus.DELETING
        else:
            with pytest.raises(NotRetryableError, match="by the client's name"):
                await control.retry(session, operation_id, Caller())


@pytest.mark.parametrize("keep_archive", [True, False])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_client_that_is_partly_gone_stays_deleting_when_its_next_deletion_is_cancelled(
    sessions: SessionFactory, vault: Vault, *, begun: bool, keep_archive: bool
) -> None:
    params = {} if keep_archive else {"keep_archive": False}
    client_id, first = await came_to_life(sessions, vault, **params)
    told = {"name": "b", "reason": "final", "files_count": 1, "files_bytes": 1, "size_bytes": 1, "sha256": "a" * 64}
    async with sessions.begin() as session:
        held = await operations.claim(session, first, "test", 30)
        assert held is not None
        result = {"removing": True, **({"backup": told} if keep_archive else {})} if begun else {}
        await operations.write(session, held, result=result)
        await operations.finish(session, held, OperationState.ERROR)
        row = await session.get_one(Operation, first, populate_existing=True)
        await apply(session, replace(Ended.of(row, OperationState.ERROR), error_code="server_unreachable"))
        assert (await session.get_one(Client, client_id)).status == ClientStatus.DELETING
    async with sessions.begin() as session:
        second = await make_operation(
            session, kind=OperationKind.DELETE_CLIENT, client_id=client_id, server_id=row.server_id, params=params
        )
        await control.cancel(session, second.id)
        client = await session.get_one(Client, client_id, populate_existing=True)
        assert client.status == (ClientStatus.DELETING if begun else ClientStatus.ACTIVE)


async def test_a_cancelled_deletion_leaves_the_one_that_runs_alone(sessions: SessionFactory, vault: Vault) -> None:
    client_id, first = await came_to_life(sessions, vault)
    async with sessions.begin() as session:
        assert await operations.claim(session, first, "test", 30) is not None
        second = await backups.request_deletion(
            session,
            client_id,
            Caller(),
            keep_archive=False,
            confirm_name=(await clients.get_client(session, client_id)).name,
        )
        await control.cancel(session, second.id)
        assert (await session.get_one(Client, client_id)).status == ClientStatus.DELETING


async def test_every_step_that_any_attempt_began_is_taken_back(
    sessions: SessionFactory, vault: Vault, engine: Engine, host: FakeHost
) -> None:
    """The first attempt came far and died; the second one fails early."""
    _, operation_id = await unborn(sessions, vault, OperationKind.CREATE_CLIENT)
    async with sessions.begin() as session:
        first = await operations.claim(session, operation_id, "dead", 0.01)
        assert first is not None
    host.answer = lambda command: Result(1) if "version" in command.argv else None
    await asyncio.sleep(0.05)
    async with sessions.begin() as session:
        session.add_all(
            OperationStep(operation_id=operation_id, position=n, name=f"s{n}", title=f"s{n}", state="done")
            for n in range(5)
        )
    await run_operation(engine, operation_id)
    async with sessions() as session:
        texts = list(await session.scalars(select(OperationLine.text).where(OperationLine.stream == "step")))
    assert any(text.startswith("Take back: Container") for text in texts)
    assert any(text.startswith("Take back: Folder") for text in texts)
    assert not any(text.startswith("Take back: Virtual host") for text in texts)


async def test_an_operation_that_no_worker_can_finish_ends(
    sessions: SessionFactory, vault: Vault, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, operation_id = await unborn(sessions, vault, OperationKind.CREATE_CLIENT)
    poisoned = Engine(**{name: getattr(engine, name) for name in engine.__slots__} | {"open_host": _explode})
    for _ in range(MAX_ATTEMPTS):
        await run_operation(poisoned, operation_id)
        async with sessions.begin() as session:
            operation = await session.get_one(Operation, operation_id)
            if operation.state == OperationState.RUNNING:
                assert operation.lease_until is not None
                assert operation.lease_until > await operations.database_now(session), "the next try comes later"
                operation.lease_until = operation.created_at
    operation = await state_of(sessions, operation_id)
    assert operation.state == OperationState.ERROR
    assert operation.error is not None
    assert operation.error["code"] == "internal"


def _explode(*_: Any) -> FakeHost:
    raise RuntimeError("a fault of the service")


async def test_hostile_words_of_a_server_can_be_stored(
    sessions: SessionFactory, vault: Vault, engine: Engine, host: FakeHost
) -> None:
    def answer(command: Command) -> Result | None:
        if "version" in command.argv:
            raise CommandFailedError("said \0 \x1b[31m " + "x" * 10_000)
        return None

    host.answer = answer
    _, operation_id = await unborn(sessions, vault, OperationKind.CREATE_CLIENT)
    await run_operation(engine, operation_id)
    operation = await state_of(sessions, operation_id)
    assert operation.error is not None
    assert "\0" not in operation.error["message"]
    assert len(operation.error["message"]) < 3_000


async def test_two_changes_are_two_operations(sessions: SessionFactory, vault: Vault) -> None:
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session))
    made = []
    for title in ("A", "B"):
        async with sessions.begin() as session:
            _, operation = await clients.update_client(session, client.id, {"title": title}, Caller())
            assert operation is not None
            made.append(operation.id)
    assert len(set(made)) == 2


async def test_a_change_during_the_creation_follows_it(sessions: SessionFactory, vault: Vault) -> None:
    client_id, creation_id = await unborn(sessions, vault, OperationKind.CREATE_CLIENT)
    async with sessions.begin() as session:
        _, operation = await clients.update_client(session, client_id, {"title": "B"}, Caller())
        assert operation is not None
    async with sessions.begin() as session:
        assert await operations.claim(session, operation.id, "w", 5) is None
        assert await operations.claim(session, creation_id, "w", 5) is not None


# Put off


@pytest.fixture
def post(engine: Engine) -> Engine:
    """Letters leave by a mail server that is down, and are tried three times."""
    mail = MailProfile(Secret(f"smtp://127.0.0.1:{free_port()}"), "cloud@example.org", delays_s=(0, 60, 120))
    return replace(engine, profile=replace(engine.profile, mail=mail))


async def letter(sessions: SessionFactory, vault: Vault) -> UUID:
    """A letter about the end of a term is to leave."""
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session), expire_date=date(2099, 1, 1))
        operation = letters.automatic(OperationKind.SEND_EXPIRE, client.id, {})
        session.add(operation)
        return operation.id


async def waits_s(sessions: SessionFactory, operation_id: UUID) -> float:
    """How long nobody may claim an operation; it is due then, as if that had passed."""
    async with sessions.begin() as session:
        operation = await session.get_one(Operation, operation_id)
        assert (operation.state, operation.worker) == (OperationState.RUNNING, None)
        assert operation.lease_until is not None
        now = await operations.database_now(session)
        assert operation.id not in dict(await operations.due(session))
        assert await operations.claim(session, operation.id, "another", 5) is None
        left_s = (operation.lease_until - now).total_seconds()
        operation.lease_until = now
        return left_s


async def test_a_letter_that_is_put_off_takes_no_worker(sessions: SessionFactory, vault: Vault, post: Engine) -> None:
    operation_id = await letter(sessions, vault)
    for delay_s in (60, 120):
        await asyncio.wait_for(run_operation(post, operation_id), 10)
        assert delay_s - 5 < await waits_s(sessions, operation_id) <= delay_s
        async with sessions() as session:
            assert await session.scalar(select(OperationStep.state)) == "waiting"
    await run_operation(post, operation_id)
    operation = await state_of(sessions, operation_id)
    assert (operation.state, operation.attempt, operation.result) == (OperationState.ERROR, 3, {"put_off": 2})
    assert operation.error is not None
    assert "tried 3 times" in operation.error["message"]
    async with sessions() as session:
        texts = list(await session.scalars(select(OperationLine.text).order_by(OperationLine.seq)))
    assert sum("Trying again at 20" in text for text in texts) == 2
    assert not any("Another worker" in text for text in texts)


async def test_putting_off_is_no_attempt_that_failed(sessions: SessionFactory, vault: Vault, post: Engine) -> None:
    operation_id = await letter(sessions, vault)
    async with sessions.begin() as session:
        operation = await session.get_one(Operation, operation_id)
        operation.result, operation.attempt = {"put_off": 2 * MAX_ATTEMPTS}, 2 * MAX_ATTEMPTS
    broken = replace(post, open_host=_explode)
    async with sessions.begin() as session:
        held = await operations.claim(session, operation_id, "worker", 30)
    assert held is not None
    await _interrupted(broken, held, RuntimeError("a fault of the service"))
    assert 0 < await waits_s(sessions, operation_id) <= 2


async def test_what_waits_is_cancelled_at_once(sessions: SessionFactory, vault: Vault, post: Engine) -> None:
    operation_id = await letter(sessions, vault)
    await run_operation(post, operation_id)
    async with sessions.begin() as session:
        await control.cancel(session, operation_id)
    async with sessions() as session:
        assert operation_id in dict(await operations.due(session))
    await run_operation(post, operation_id)
    assert (await state_of(sessions, operation_id)).state == OperationState.CANCELLED


async def test_a_wish_to_cancel_that_the_worker_has_not_heard_is_no_reason_to_wait(
    sessions: SessionFactory, vault: Vault
) -> None:
    operation_id = await letter(sessions, vault)
    async with sessions.begin() as session:
        held = await operations.claim(session, operation_id, "worker", 30)
    assert held is not None
    async with sessions.begin() as session:
        await control.cancel(session, operation_id)
    async with sessions() as session:
        assert operation_id not in dict(await operations.due(session)), "a worker holds it"
    async with sessions.begin() as session:
        await operations.give_back(session, held, 60)
    async with sessions() as session:
        assert operation_id in dict(await operations.due(session))


async def test_a_letter_is_written_anew_at_each_try(sessions: SessionFactory, vault: Vault, post: Engine) -> None:
    operation_id = await letter(sessions, vault)
    await run_operation(post, operation_id)
    await waits_s(sessions, operation_id)
    async with sessions.begin() as session:
        await session.execute(update(Client).values(email="new@example.org"))
    await run_operation(post, operation_id)
    async with sessions() as session:
        texts = list(await session.scalars(select(OperationLine.text).where(OperationLine.stream == "step")))
    assert texts == ["Letter to lab@example.org", "Letter to new@example.org"]
