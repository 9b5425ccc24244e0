"""The SSH connections of a process: kept, shared, bounded for each server, and replaced when they die."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncssh

from alfa_cloud.errors import HostUnreachableError, RemoteError
from alfa_cloud.remote.address import Dialer, IPNetwork
from alfa_cloud.remote.link import COMMAND_WINDOW, Link, RemoteProcess, SessionRefusedError, show_host_key
from alfa_cloud.specs import Address, Secret

SESSIONS: Final = 4
"""At once on a connection: sshd allows 10, and counts one for a moment after it closed."""
CONNECTIONS: Final = 2
REFUSED_FOR_S: Final = 30
"""How long a server may refuse sessions before it counts as unreachable."""

KeySource = Secret | Callable[[], Secret] | Callable[[], Awaitable[Secret]]


class SshPool:
    """Connections to any number of servers; none waits for another.

    Args:
        private_key: in OpenSSH's format, or what gives it, asked at each connection.
        connect_timeout_s: for name, TCP, key exchange and login together.
        allowed_networks: private ranges that servers may be in.
    """

    def __init__(
        self,
        private_key: KeySource,
        *,
        connect_timeout_s: float = 10,
        allowed_networks: Sequence[IPNetwork] = (),
    ) -> None:
        self._private_key = private_key
        self._timeout_s = connect_timeout_s
        self._dialer = Dialer(allowed_networks)
        self._servers: dict[Address, _Server] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many connections stand."""
        return sum(server.connections for server in self._servers.values())

    async def check_address(self, host: str, port: int) -> str:
        """The IP address that a connection to this host would go to.

        Raises:
            AddressRefusedError: it is one not to connect to.
            HostUnreachableError: the name does not resolve.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return (await self._dialer.check(host, port))[0]
        except TimeoutError as error:
            raise HostUnreachableError(f"The name {host} does not resolve.", meta={"reason": "dns"}) from error

    async def fetch_host_key(self, host: str, port: int) -> str:
        """The host key that a server shows at first contact, as `TYPE BASE64`; no login is tried.

        Raises:
            AddressRefusedError: the address is one not to connect to.
            HostUnreachableError: no SSH server answers there.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                sock, _ = await self._dialer.dial(host, port)
                return await show_host_key(sock)
        except TimeoutError as error:
            raise _silent(host, port) from error

    async def connect(self, address: Address) -> str:
        """A connection stands; gives the IP address it goes to.

        Raises:
            AddressRefusedError, HostUnreachableError, HostKeyChangedError, LoginRefusedError: why there is none.
        """
        server = self._server(address)
        asked_at = asyncio.get_running_loop().time()
        async with server.gate, server.link(asked_at) as link:
            return link.ip

    def ip(self, address: Address) -> str | None:
        """The IP address of the last connection to this server; None before the first."""
        server = self._servers.get(address)
        return server.ip if server else None

    @asynccontextmanager
    async def process(
        self, address: Address, line: str, *, window: int = COMMAND_WINDOW
    ) -> AsyncIterator[RemoteProcess]:
        """A program started on the server; left alone afterwards, with its channel cut where it still stands.

        Raises:
            AddressRefusedError, HostUnreachableError, HostKeyChangedError, LoginRefusedError: it was not started.
            ConnectionLostError: whether it was started is unknown.
        """
        server = self._server(address)
        asked_at = asyncio.get_running_loop().time()
        async with server.gate, server.opened(line, window, asked_at) as process:
            try:
                yield process
            finally:
                process.channel.abort()

    def retire(self, address: Address) -> None:
        """Commands from now on run on new connections; what runs on one goes on to its end."""
        if address in self._servers:
            task = asyncio.create_task(self._servers.pop(address).retire())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def drop(self, server_id: int) -> None:
        """No connection to this server stands any more; commands on one end with `ConnectionLostError`."""
        for address in [known for known in self._servers if known.server_id == server_id]:
            await self._servers.pop(address).close()

    async def close(self) -> None:
        """No connection stands any more."""
        servers, self._servers = list(self._servers.values()), {}
        await asyncio.gather(*(server.close() for server in servers), *self._closing)
        self._dialer.close()

    def _server(self, address: Address) -> _Server:
        if address not in self._servers:
            # The same server by another address or key: what was opened to the old one is let go.
            for old in [known for known in self._servers if known.server_id == address.server_id]:
                self.retire(old)
            self._servers[address] = _Server(address, self._connect)
        return self._servers[address]

    async def _connect(self, address: Address, on_change: Callable[[], None]) -> Link:
        try:
            async with asyncio.timeout(self._timeout_s):
                key = await self._key()
                sock, ip = await self._dialer.dial(address.host, address.port)
                link = Link(ip, on_change)
                await link.connect(address, key, sock)
                return link
        except TimeoutError as error:
            raise _silent(address.host, address.port) from error

    async def _key(self) -> asyncssh.SSHKey:
        secret = self._private_key if isinstance(self._private_key, Secret) else self._private_key()
        if inspect.isawaitable(secret):
            secret = await secret
        return asyncssh.import_private_key(secret.reveal())


def _silent(host: str, port: int) -> HostUnreachableError:
    return HostUnreachableError(f"{host}:{port} did not answer in time.", meta={"reason": "timeout"})


class _Server:
    """The connections to one server."""

    def __init__(
        self, address: Address, connect: Callable[[Address, Callable[[], None]], Coroutine[None, None, Link]]
    ) -> None:
        self.ip: str | None = None
        self.gate = asyncio.Semaphore(SESSIONS * CONNECTIONS)
        """Held for a session; first come, first served."""
        self._address = address
        self._connect = connect
        self._links: list[Link] = []
        self._connecting: asyncio.Task[Link] | None = None
        self._changed = asyncio.Event()
        self._failure: tuple[float, BaseException] | None = None
        self._ended = False
        self._closed = False

    @property
    def connections(self) -> int:
        """How many of them stand."""
        return sum(link.alive for link in self._links)

    @asynccontextmanager
    async def opened(self, line: str, window: int, asked_at: float) -> AsyncIterator[RemoteProcess]:
        """A program, on whichever connection takes it; a refused session is asked for again."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + REFUSED_FOR_S
        while True:
            async with self.link(asked_at) as link:
                try:
                    process = await link.open(line, window)
                except SessionRefusedError as error:
                    link.rest(loop.time())
                    if loop.time() > patience:
                        where = f"{self._address.host}:{self._address.port}"
                        raise HostUnreachableError(f"{where} opens no sessions.", meta={"reason": "refused"}) from error
                    continue
                yield process
                return

    @asynccontextmanager
    async def link(self, asked_at: float) -> AsyncIterator[Link]:
        """A connection with room for a session, which is taken until the end of the block."""
        link = await self._take(asked_at)
        try:
            yield link
        finally:
            link.used -= 1
            if (link.retired or self._ended) and link.used == 0:
                link.abort()
            self._notify()

    async def _take(self, asked_at: float) -> Link:
        while not self._closed:
            now = asyncio.get_running_loop().time()
            self._links = [link for link in self._links if link.alive]
            usable = [link for link in self._links if not link.retired]
            free = [link for link in usable if link.used < SESSIONS and link.rests_until <= now]
            if free:
                link = min(free, key=lambda link: link.used)
                link.used += 1
                return link
            # Whoever waited while a connection failed shares its failure: one attempt for all of them.
            failure = self._failure[1] if self._failure and self._failure[0] >= asked_at else None
            if failure and not usable:
                raise _copy(failure)
            if len(usable) < CONNECTIONS and not failure and self._connecting is None:
                self._connecting = asyncio.create_task(self._connect(self._address, self._notify))
                self._connecting.add_done_callback(self._connected)
            await self._wait(min((link.rests_until - now for link in usable if link.rests_until > now), default=None))
        raise HostUnreachableError("The connections to this server were closed.", meta={"reason": "network"})

    async def _wait(self, seconds: float | None) -> None:
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            pass

    def _connected(self, task: asyncio.Task[Link]) -> None:
        self._connecting = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._links.append(task.result())
            self.ip = task.result().ip
            self._failure = None
        else:
            self._failure = (asyncio.get_running_loop().time(), error)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def retire(self) -> None:
        """Closed as soon as nothing runs on it."""
        self._ended = True
        await asyncio.gather(*(link.close() for link in self._links if link.used == 0))

    async def close(self) -> None:
        """Closed now; whoever waits gets `HostUnreachableError`."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await asyncio.gather(*(link.close() for link in self._links))
        self._notify()


def _copy(error: BaseException) -> BaseException:
    return type(error)(error.detail, meta=error.meta) if isinstance(error, RemoteError) else error
