"""What is said before a build is taken: whether there is a repository, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alfa_cloud.errors import AlfaCloudError, CommandFailedError, HostUnreachableError, ServerNotReadyError
from alfa_cloud.profile import Branch, Source
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.git import BranchMissingError, SourceUnreachableError
from alfa_cloud.remote.host import Result
from alfa_cloud.services.builds import SourceNotConfiguredError, deploy_key, look_at_branch
from alfa_cloud.services.images import ServerUnavailableError
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
