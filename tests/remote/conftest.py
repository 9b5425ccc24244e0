"""Real SSH servers on loopback: OpenSSH where it is installed, and one in this process that needs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncssh
import pytest

from alfa_cloud.remote import keys
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.session import Begun, SshHost
from alfa_cloud.specs import Address, Layout, Secret, Stream
from tests.system import free_port

SSHD = "/usr/sbin/sshd"
SUDO = """#!/bin/sh
echo "$*" >>"$(dirname "$0")/sudo.log"
[ "$1" = -n ] && shift
[ "$1" = -- ] && shift
exec "$@"
"""


class PracticeServer(Protocol):
    """A server that can be cut off and set up anew."""

    @property
    def address(self) -> Address: ...

    @property
    def root(self) -> Path: ...

    async def cut(self) -> None:
        """Kill every connection, as a network or a dying sshd would."""

    async def change_key(self) -> None:
        """The server comes back on its port with another host key."""

    async def stop(self) -> None: ...


class OpenSsh:
    """An sshd of our own, with its own configuration, on a free port."""

    def __init__(self, root: Path, public_key: str) -> None:
        self.root = root
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (root / "authorized_keys").write_text(public_key + "\n")
        self._host_key = self._new_key()

    @property
    def address(self) -> Address:
        return Address(1, "127.0.0.1", self._port, getpass.getuser(), self._host_key)

    async def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        lines = [
            f"Port {self._port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.root}/host_key",
            f"AuthorizedKeysFile {self.root}/authorized_keys",
            f"PidFile {self.root}/pid",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "MaxStartups 100",
            f"SetEnv PATH={self.root}/bin:{os.environ['PATH']} HOME={self.root}",
        ]
        (self.root / "sshd_config").write_text("\n".join(lines) + "\n")
        argv = [SSHD, "-D", "-e", "-f", str(self.root / "sshd_config")]
        with (self.root / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            await asyncio.sleep(0.02)
        raise RuntimeError((self.root / "sshd.log").read_text())

    async def cut(self) -> None:
        assert self._process is not None
        pid = self._process.pid
        if self._process.poll() is not None:
            return
        for child in children(pid):
            for victim in (child, *(other for other in children(child) if is_sshd(other))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)

    async def change_key(self) -> None:
        await self.stop()
        self._new_key()
        await self.start()

    async def stop(self) -> None:
        if self._process is not None:
            await self.cut()
            self._process.kill()
            self._process.wait()

    def _new_key(self) -> str:
        key = asyncssh.generate_private_key("ssh-ed25519")
        path = self.root / "host_key"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(key.export_private_key("openssh"))
        return keys.public_line(key)


class InProcess:
    """An SSH server in this process, that runs real commands."""

    def __init__(self, root: Path, public_key: str) -> None:
        self.root = root
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._host_key = keys.public_line(self._key)
        self._public_key = public_key
        self._port = free_port()
        self._server: asyncssh.SSHAcceptor | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()

    @property
    def address(self) -> Address:
        return Address(1, "127.0.0.1", self._port, "someone", self._host_key)

    async def start(self) -> None:
        connections = self._connections

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                self.conn = conn
                connections.add(conn)

            def connection_lost(self, exc: Exception | None) -> None:
                connections.discard(self.conn)

        self._server = await asyncssh.listen(
            "127.0.0.1",
            self._port,
            server_factory=Server,
            server_host_keys=[self._key],
            authorized_client_keys=asyncssh.import_authorized_keys(self._public_key),
            process_factory=self._serve,
            encoding=None,
        )

    async def cut(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    async def change_key(self) -> None:
        await self.stop()
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        await self.start()

    async def stop(self) -> None:
        await self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        path = f"{self.root}/bin:{os.environ['PATH']}"
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            process.command or ":",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
        stdin, stdout, stderr = child.stdin, child.stdout, child.stderr
        if stdin is None or stdout is None or stderr is None:
            raise RuntimeError("the pipes were asked for")
        pumps = asyncio.gather(_pump(stdout, process.stdout), _pump(stderr, process.stderr))
        feeding = asyncio.create_task(_feed(process.stdin, stdin))
        cut = asyncio.create_task(process.channel.wait_closed())
        waiting: list[asyncio.Future[object]] = [cut, pumps]  # type: ignore[list-item]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if pumps.done():
            with contextlib.suppress(asyncssh.Error, OSError):
                code = await child.wait()
                if code < 0:
                    process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
                else:
                    process.exit(code)
        # As sshd does: the program's pipes end with the connection.
        for task in (pumps, feeding, cut):
            task.cancel()
        await asyncio.gather(pumps, feeding, cut, return_exceptions=True)
        close_pipes(child)


def close_pipes(child: asyncio.subprocess.Process) -> None:
    """The program finds its streams closed; it is not killed, as `transport.close()` would."""
    transport: asyncio.SubprocessTransport = child._transport  # type: ignore[attr-defined]
    for descriptor in range(3):
        if pipe := transport.get_pipe_transport(descriptor):
            pipe.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncssh.SSHWriter[bytes]) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _feed(reader: asyncssh.SSHReader[bytes], writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


def children(pid: int) -> list[int]:
    """The processes that this one started, and that still run."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_sshd(pid: int) -> bool:
    """Whether a process is part of sshd."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    except OSError:
        return False


@dataclass
class Lines:
    """A sink that keeps everything, and can be told to do something at a line."""

    taken: list[tuple[Stream, str]] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    on_line: dict[str, Callable[[], object]] = field(default_factory=dict)
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def lines(self, stream: Stream, lines: Sequence[str], checkpoint: tuple[str, int] | None = None) -> None:
        self.taken += [(stream, line) for line in lines]
        if checkpoint is not None:
            self.checkpoints[checkpoint[0]] = checkpoint[1]
        self.seen.set()

    def checkpoint(self, name: str) -> int:
        return self.checkpoints.get(name, 0)

    async def note(self, text: str, /) -> None:
        self.taken.append((Stream.SYSTEM, text))

    async def warn(self, text: str, /) -> None:
        self.warnings.append(text)

    async def report(self, **facts: Any) -> None:
        self.facts |= facts

    def of(self, stream: Stream) -> list[str]:
        return [line for source, line in self.taken if source is stream]

    async def until(self, text: str) -> None:
        """Wait for a line that holds this text."""
        async with asyncio.timeout(20):
            while not any(text in line for _, line in self.taken):
                self.seen.clear()
                await self.seen.wait()


@dataclass
class Practice:
    """A server, the connections to it, and hosts made from both."""

    server: PracticeServer
    pool: SshPool
    operation_dir: str

    def host(
        self,
        sink: Lines | None = None,
        *,
        fence: int = 1,
        secrets: Sequence[str] = (),
        guard: Callable[[], None] = lambda: None,
        pool: SshPool | None = None,
        begun: Begun | None = None,
    ) -> SshHost:
        return SshHost(
            pool or self.pool,
            self.server.address,
            Layout(root=str(self.server.root)),
            sink=sink if sink is not None else Lines(),
            operation_dir=self.operation_dir,
            fence=fence,
            masker=Masker(map(Secret, secrets)),
            guard=guard,
            delays=(0.05, 0.1, 0.2),
            begun=begun,
        )

    def folder(self, name: str) -> Path:
        return Path(self.operation_dir) / name


LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
CLIENT_KEY = keys.generate_key()


def new_pool() -> SshPool:
    """A pool of its own: another worker."""
    return SshPool(CLIENT_KEY[0], allowed_networks=LOOPBACK, connect_timeout_s=5)


@pytest.fixture(params=["openssh", "inprocess"])
async def practice(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Practice]:
    if request.param == "openssh" and not os.access(SSHD, os.X_OK):
        pytest.skip("OpenSSH's server is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "operations").mkdir()
    sudo = tmp_path / "bin" / "sudo"
    sudo.write_text(SUDO)
    sudo.chmod(0o755)
    server = (OpenSsh if request.param == "openssh" else InProcess)(tmp_path, CLIENT_KEY[1])
    await server.start()
    pool = new_pool()
    yield Practice(server, pool, str(tmp_path / "operations" / "op-1"))
    await pool.close()
    await server.stop()
    shutil.rmtree(tmp_path, ignore_errors=True)
