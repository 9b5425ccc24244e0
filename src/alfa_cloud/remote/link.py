"""One SSH connection to a server: made with the pinned key only, and open for a few sessions at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import asyncssh

from alfa_cloud.errors import (
    ConnectionLostError,
    HostKeyChangedError,
    HostUnreachableError,
    LoginRefusedError,
    RemoteError,
)
from alfa_cloud.remote import keys
from alfa_cloud.specs import Address

CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
"""The first two move 107 to 122 MiB/s, the third 63."""
KEEPALIVE_S: Final = 10
KEEPALIVE_COUNT: Final = 3
PACKET_BYTES: Final = 256 * 1024
COMMAND_WINDOW: Final = 2 * 1024**2
TRANSFER_WINDOW: Final = 16 * 1024**2
"""What the server may send ahead of us, and what is held in memory at most."""


REFUSALS: Final = 5
"""In a row, after which a connection is left to end, and another one takes its place."""


class SessionRefusedError(Exception):
    """No session came about, and nothing was run: another try is safe."""


class RemoteProcess(asyncssh.SSHClientProcess[bytes]):
    """A program on a server.

    Args:
        stands: whether its connection stands.
        exited: set when the server has reported its end, while output may still be on its way.
        whole: whether its channel ended with all of its output delivered; after `exited` the connection may have ended.
    """

    def __init__(self, stands: Callable[[], bool]) -> None:
        super().__init__()
        self.exited = asyncio.Event()
        self.whole = False
        self._stands = stands

    def connection_lost(self, exc: Exception | None) -> None:
        """Its channel is closed: by the server, or with its connection, which drops what was not yet taken."""
        self.whole = exc is None and self._stands()
        super().connection_lost(exc)

    def exit_status_received(self, status: int) -> None:
        """The program ended by itself."""
        self.exited.set()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """The program ended by a signal."""
        self.exited.set()


class _Client(asyncssh.SSHClient):
    """Remembers which key was shown, and tells when the connection is gone."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.taken = False
        self.shown: asyncssh.SSHKey | None = None
        self._on_lost = on_lost

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.taken = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key
        return False


class Link:
    """One connection, and how many sessions are open on it.

    Args:
        ip: the address at the other end.
        on_change: called when the connection is gone.
    """

    def __init__(self, ip: str, on_change: Callable[[], None]) -> None:
        self.ip = ip
        self.used = 0
        self.alive = True
        self.retired = False
        """Nothing new is opened on it; it goes when it is not used any more."""
        self.rests_until = 0.0
        self._refusals = 0
        self._on_change = on_change
        self._connection: asyncssh.SSHClientConnection | None = None

    async def connect(self, address: Address, key: asyncssh.SSHKey, sock: socket.socket) -> None:
        """The connection stands and the login is done; takes the socket over.

        Raises:
            HostKeyChangedError: the server shows another key than the pinned one; nothing was sent to it.
            LoginRefusedError: the server does not accept our key.
            HostUnreachableError: what answers is no SSH server, or it hung up.
        """
        client = _Client(self._lost)
        try:
            pinned = asyncssh.import_public_key(address.host_key)
            self._connection = await asyncssh.connect(
                sock=sock,
                config=None,
                client_factory=lambda: client,
                username=address.username,
                client_keys=[key],
                known_hosts=([pinned], [], []),
                server_host_key_algs=keys.algorithms_for(pinned),
                **OPTIONS,
            )
        except (asyncssh.Error, OSError) as error:
            raise _translate(error, address, client.shown) from error
        finally:
            if not client.taken:
                sock.close()

    async def open(self, line: str, window: int) -> RemoteProcess:
        """A program started by this line.

        Raises:
            SessionRefusedError: it was not started.
            ConnectionLostError: whether it was started is unknown.
        """
        if self._connection is None:
            raise SessionRefusedError
        made: list[RemoteProcess] = []

        def factory() -> RemoteProcess:
            made.append(RemoteProcess(lambda: self.alive))
            return made[0]

        try:
            await self._connection.create_session(
                factory, line, encoding=None, window=window, max_pktsize=min(window, PACKET_BYTES)
            )
        except (asyncssh.Error, OSError) as error:
            if made and not self.alive:
                raise ConnectionLostError("The connection ended while a command was being started.") from error
            raise SessionRefusedError from error
        except BaseException:
            self._abandon(made)
            raise
        self._refusals = 0
        return made[0]

    def rest(self, now: float) -> None:
        """It is left alone for a moment, since the server refused a session; when it keeps refusing, for good."""
        self._refusals += 1
        self.rests_until = now + min(1.0, 0.05 * 2 ** (self._refusals - 1))
        # Programs of calls that were cut off may hold its sessions until they end.
        self.retired = self.retired or self._refusals >= REFUSALS

    def abort(self) -> None:
        """The connection is cut, with everything on it."""
        self.alive = False
        if self._connection is not None:
            self._connection.abort()

    async def close(self) -> None:
        """The connection is closed."""
        self.alive = False
        if self._connection is not None:
            self._connection.close()
            try:
                async with asyncio.timeout(2):
                    await self._connection.wait_closed()
            except TimeoutError:
                self._connection.abort()

    def _lost(self) -> None:
        self.alive = False
        self._on_change()

    def _abandon(self, made: list[RemoteProcess]) -> None:
        if made:
            made[0].channel.abort()
        else:
            self.retired = True  # its half-open channel cannot be taken back


OPTIONS: Final = {
    "agent_path": None,
    "agent_forwarding": False,
    "password": None,
    "preferred_auth": "publickey",
    "host_based_auth": False,
    "gss_host": None,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": None,
    "encryption_algs": list(CIPHERS),
    "compression_algs": None,
    "keepalive_interval": KEEPALIVE_S,
    "keepalive_count_max": KEEPALIVE_COUNT,
    "client_version": "AlfaCloud",
}


async def show_host_key(sock: socket.socket) -> str:
    """The host key that a server shows, as `TYPE BASE64`; no login is tried. Takes the socket over.

    Raises:
        HostUnreachableError: what answers is no SSH server.
    """
    try:
        options = await asyncssh.SSHClientConnectionOptions.construct(
            client_keys=None, username="-", config=None, **OPTIONS
        )
        key = await asyncssh.get_server_host_key(
            sock=sock, config=None, options=options, server_host_key_algs=list(keys.HOST_KEY_ALGORITHMS)
        )
    except (asyncssh.Error, OSError) as error:
        raise _no_ssh("The address") from error
    if key is None:
        raise _no_ssh("The address")
    return keys.public_line(key)


def _translate(error: Exception, address: Address, shown: asyncssh.SSHKey | None) -> RemoteError:
    where = f"{address.host}:{address.port}"
    if shown is not None:
        pinned, new = keys.fingerprint(address.host_key), shown.get_fingerprint()
        return HostKeyChangedError(
            f"{where} shows the host key {new}, and {pinned} is the one it is known by. Nothing was sent to it. "
            "If the server was set up anew, accept its new key.",
            meta={"pinned": pinned, "shown": new, "server_id": address.server_id},
        )
    if isinstance(error, (asyncssh.PermissionDenied, asyncssh.IllegalUserName)):
        return LoginRefusedError(
            f"{where} does not let the user {address.username} in with our key: it must stand in authorized_keys."
        )
    return _no_ssh(where)


def _no_ssh(where: str) -> HostUnreachableError:
    return HostUnreachableError(
        f"{where} hung up, or does not speak SSH in a way that is accepted here.", meta={"reason": "protocol"}
    )
