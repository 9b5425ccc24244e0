"""What is said before a build is taken: whether there is a repository, and what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import AlfaCloudError, CommandFailedError, HostUnreachableError, ServerNotReadyError
from alfa_cloud.models import Operation
from alfa_cloud.profile import Branch, Source
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.git import BranchMissingError, SourceUnreachableError
from alfa_cloud.remote.host import Result
from alfa_cloud.services.builds import SourceNotConfiguredError, deploy_key, look_at_branch, request
from alfa_cloud.services.images import ServerUnavailableError
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import OperationKind, OperationState
from tests.factories import make_operation, make_server
from tests.fakes import FakeHost

HTTPS = Source("https://git.example.org/alfa/app.git")
COMMIT = "0123456789" * 4


def fails(error: Exception) -> Callable[[Command], Result]:
    """A host that cannot."""

    def answer(_: Command) -> Result:
        raise error

    return answer


async def test_the_commit_of_a_branch() -> None:
    host = FakeHost(lambda _: Result(0, f"{COMMIT}\trefs/heads/dev\n".encode()))
    assert await look_at_branch(host, HTTPS, Branch.DEV) == COMMIT


async def test_without_a_repository_the_setting_is_named() -> None:
    host = FakeHost()
    with pytest.raises(SourceNotConfiguredError, match="ALFA_SOURCE__URL") as caught:
        await look_at_branch(host, Source(), Branch.DEV)
    assert (caught.value.status, caught.value.code, host.commands) == (409, "source_not_configured", [])


async def test_a_key_that_cannot_be_read_is_named_by_its_setting(tmp_path: Path) -> None:
    source = Source("git@git.example.org:app.git", str(tmp_path / "none"), "ssh-ed25519 AAAA")
    with pytest.raises(SourceNotConfiguredError, match="ALFA_SOURCE__KEY_FILE") as caught:
        await deploy_key(source)
    assert str(tmp_path) not in caught.value.detail
    (tmp_path / "none").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceNotConfiguredError):
        await deploy_key(source)
    (tmp_path / "key").write_text("canary")
    assert (await deploy_key(replace(source, key_file=str(tmp_path / "key")))).reveal() == "canary"


@pytest.mark.parametrize(
    ("error", "expected", "status"),
    [
        (CommandFailedError("", exit_status=2), BranchMissingError, 422),
        (CommandFailedError("", exit_status=127), ServerNotReadyError, 409),
        (CommandFailedError("", exit_status=128, output="denied"), SourceUnreachableError, 502),
        (TimeoutError(), SourceUnreachableError, 502),
        (HostUnreachableError("away"), ServerUnavailableError, 503),
    ],
)
async def test_what_is_wrong_is_said(error: Exception, expected: type[AlfaCloudError], status: int) -> None:
    with pytest.raises(expected) as caught:
        await look_at_branch(FakeHost(fails(error)), HTTPS, Branch.MASTER)
    assert caught.value.status == status


async def test_a_commit_that_waits_to_be_built_is_not_built_twice(sessions: SessionFactory) -> None:
    """Also where other commands of the server were asked for in between, and at the same moment."""
    async with sessions.begin() as session:
        server_id = (await make_server(session)).id

    async def ask(branch: Branch = Branch.DEV, commit: str = COMMIT) -> UUID:
        async with sessions.begin() as session:
            return (await request(session, server_id, branch, commit, Caller())).id

    first = await ask()
    async with sessions.begin() as session:
        await make_operation(session, kind=OperationKind.REBOOT_SERVER, server_id=server_id, exclusive=True)
    others = {await ask(Branch.MASTER), await ask(commit="9" * 40)}
    assert set(await asyncio.gather(*(ask() for _ in range(8)))) == {first}
    assert len({first, *others}) == 3
    async with sessions.begin() as session:
        (await session.get_one(Operation, first)).state = OperationState.OK
    again = set(await asyncio.gather(*(ask() for _ in range(8))))
    assert len(again) == 1
    assert first not in again
