"""The log of a client's container: a bounded look, or followed while somebody reads."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import AlfaCloudError, CommandFailedError, ConflictError, HostKeyChangedError, RemoteError
from alfa_cloud.models import Server
from alfa_cloud.remote import container_log
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.pool import CONNECTIONS, SESSIONS, SshPool
from alfa_cloud.services import servers
from alfa_cloud.services.client_specs import client_secrets, client_spec
from alfa_cloud.services.clients import get_client
from alfa_cloud.services.images import ServerUnavailableError
from alfa_cloud.specs import Address, AppProfile
from alfa_cloud.vault import Vault

LOOK_S: Final = 8.0
MAX_BYTES: Final = 4 * 1024**2
"""Of a look: the last lines are kept."""
FOLLOWERS: Final = SESSIONS * CONNECTIONS // 2
"""Of one server at once: the other half of its sessions stays free for looks."""
ASK_AGAIN_S: Final = 30


class NoContainerLogError(ConflictError):
    """The client has no container whose log could be read."""

    code = "no_container_log"
    title = "There is no log"


class TooManyFollowersError(AlfaCloudError):
    """So many follow logs of this server that one more would take the sessions that others need."""

    status = 429
    code = "too_many_followers"
    title = "Too many follow logs of this server"


class Followers:
    """Those who follow logs in this process, counted for each server."""

    def __init__(self) -> None:
        self._count: Counter[Address] = Counter()

    def check(self, address: Address) -> None:
        """Nothing, where one more may follow.

        Raises:
            TooManyFollowersError: there are enough.
        """
        if self._count[address] >= FOLLOWERS:
            detail = f"{FOLLOWERS} follow logs of this server already; try again soon, or read the last lines."
            raise TooManyFollowersError(detail, meta={"retry_after_s": ASK_AGAIN_S})

    @contextmanager
    def place(self, address: Address) -> Iterator[None]:
        """One more follows.

        Raises:
            TooManyFollowersError: there are enough.
        """
        self.check(address)
        self._count[address] += 1
        try:
            yield
        finally:
            self._count[address] -= 1


@dataclass(frozen=True, slots=True)
class Source:
    """A container, and what of its log must not be shown."""

    address: Address
    container: str
    masker: Masker


async def source_of(session: AsyncSession, client_id: int, app: AppProfile, vault: Vault) -> Source:
    """The container of a client.

    Raises:
        ClientNotFoundError: there is none.
        HostKeyChangedError: its server is shut off.
    """
    client = await get_client(session, client_id)
    server = await session.get_one(Server, client.server_id)
    servers.check_usable(server)
    secrets = client_secrets(client, vault)
    own = (secrets.app_key, secrets.database_password, secrets.owner_password)
    masker = Masker(secret for secret in own if secret is not None)
    return Source(server.address, client_spec(client, server, app).container, masker)


async def read(pool: SshPool, source: Source, tail_lines: int) -> list[str]:
    """The last lines of a container.

    Raises:
        NoContainerLogError: there is no container, or Docker does not answer.
        ServerUnavailableError: the server could not be asked in time.
        HostKeyChangedError: it shows another key than the pinned one.
    """
    command = container_log.read(source.container, tail_lines)
    kept: deque[str] = deque()
    size = 0
    try:
        async with asyncio.timeout(LOOK_S), aclosing(_lines(pool, source, command)) as parts:
            async for part in parts:
                for line in part:
                    kept.append(line)
                    size += len(line)
                while len(kept) > tail_lines or size > MAX_BYTES:
                    size -= len(kept.popleft())
    except TimeoutError as error:
        raise ServerUnavailableError(f"The container's log did not come within {LOOK_S:g} s.") from error
    return list(kept)


async def follow(
    pool: SshPool, source: Source, tail_lines: int, followers: Followers
) -> AsyncGenerator[list[str], None]:
    """The last lines of a container, and those that come; for some minutes, and while somebody reads.

    What goes wrong on the way ends it.
    """
    command = container_log.follow(source.container, tail_lines)
    with followers.place(source.address):
        async with aclosing(_lines(pool, source, command)) as parts:
            async for part in parts:
                yield part


async def check(pool: SshPool, source: Source) -> None:
    """Nothing, where the server can be asked.

    Raises:
        ServerUnavailableError: it cannot.
        HostKeyChangedError: it shows another key than the pinned one.
    """
    try:
        await container_log.check_reachable(pool, source.address, LOOK_S)
    except HostKeyChangedError:
        raise
    except RemoteError as error:
        raise ServerUnavailableError(error.detail) from error


async def _lines(pool: SshPool, source: Source, command: Command) -> AsyncGenerator[list[str], None]:
    try:
        async with aclosing(container_log.lines(pool, source.address, command, source.masker)) as parts:
            async for part in parts:
                yield part
    except HostKeyChangedError:
        raise
    except CommandFailedError as error:
        raise NoContainerLogError(error.detail) from error
    except RemoteError as error:
        raise ServerUnavailableError(error.detail) from error
