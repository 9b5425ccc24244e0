"""Builds of images: what is asked for, after a bounded look at the branch."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, ConflictError, HostKeyChangedError, RemoteError
from alfa_cloud.models import Operation
from alfa_cloud.profile import Branch, Source
from alfa_cloud.remote import git
from alfa_cloud.remote.git import SourceUnreachableError, Status
from alfa_cloud.remote.host import Host
from alfa_cloud.services import operations
from alfa_cloud.services.images import ServerUnavailableError
from alfa_cloud.services.operations import Caller
from alfa_cloud.services.servers import get_server
from alfa_cloud.specs import OperationKind, Secret


class SourceNotConfiguredError(ConflictError):
    """The settings name no repository, or a deploy key that is not there."""

    code = "source_not_configured"
    title = "No source repository is set"


async def deploy_key(source: Source) -> Secret:
    """What opens the repository; empty where nothing must.

    Raises:
        SourceNotConfiguredError: there is no repository, or its key cannot be read.
    """
    if not source.url:
        raise SourceNotConfiguredError("Images are built from a git repository: name it in ALFA_SOURCE__URL.")
    if not source.by_ssh:
        return Secret("")
    try:
        return Secret(await asyncio.to_thread(Path(source.key_file).read_text))
    except (OSError, ValueError) as error:
        raise SourceNotConfiguredError("The file of ALFA_SOURCE__KEY_FILE cannot be read here.") from error


async def look_at_branch(host: Host, source: Source, branch: Branch) -> str:
    """The commit of a branch now, as the server sees it.

    Raises:
        SourceNotConfiguredError: there is no repository to look at.
        SourceUnreachableError, BranchMissingError: it cannot be read, or has no such branch.
        ServerUnavailableError, HostKeyChangedError, ServerNotReadyError: what is wrong with the server.
    """
    key = await deploy_key(source)
    try:
        async with asyncio.timeout(git.LOOK_S):
            text = (await host.run(git.look_at_branch(source, key, branch))).text
    except CommandFailedError as error:
        if error.exit_status == Status.NO_SUCH_BRANCH:
            raise git.no_such_branch(branch) from error
        raise git.why_not(error) from error
    except (CommandTimeoutError, TimeoutError) as error:
        raise SourceUnreachableError(f"The repository did not answer the server within {git.LOOK_S:g} s.") from error
    except HostKeyChangedError:
        raise
    except RemoteError as error:
        raise ServerUnavailableError(f"The server cannot be asked for the branch: {error.detail}") from error
    return git.parse_branch(text, branch)


async def request(session: AsyncSession, server_id: int, branch: Branch, commit: str, caller: Caller) -> Operation:
    """The operation that builds a branch's commit on a server; the one that is about to, if there is one,
    whatever else was asked for since: a commit needs no second build.

    Raises:
        ServerNotFoundError: there is no such server.
    """
    await get_server(session, server_id)
    params = {"branch": branch.value, "commit": commit}
    await operations.lock_subject(session, server_id)
    unfinished = select(Operation).where(
        Operation.kind == OperationKind.BUILD_IMAGE,
        Operation.server_id == server_id,
        Operation.state.in_(operations.UNFINISHED),
        Operation.params == params,
    )
    same = await session.scalar(unfinished.order_by(Operation.created_at, Operation.id).limit(1))
    if same is not None:
        return same
    operation, _ = await operations.request(
        session, OperationKind.BUILD_IMAGE, caller, server_id=server_id, params=params
    )
    return operation
