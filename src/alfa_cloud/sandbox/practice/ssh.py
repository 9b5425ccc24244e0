"""The practice server's SSH server: real commands in the folder, ended and cut as sshd would."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import traceback
from contextlib import suppress
from typing import Any, Final

import asyncssh

from alfa_cloud.sandbox.practice import faults, shortcut
from alfa_cloud.sandbox.practice.control import CUT_STATUS, PROGRAMS, Control, chunks
from alfa_cloud.sandbox.practice.faults import Action, Fault, Phase
from alfa_cloud.sandbox.practice.folder import LOOPBACK, USERNAME, PracticeFolder
from alfa_cloud.sandbox.practice.machine import Machine

Process = asyncssh.SSHServerProcess[bytes]
BLOCK: Final = 1 << 16
ALIVE: Final[set[asyncio.Task[int]]] = set()

# What a line must not find on the real machine: `/etc`, the boot id, and whether systemd runs.
ELSEWHERE: Final = re.compile(r"(?<![\w./-])(/etc/|/run/systemd/|/proc/sys/kernel/random/boot_id\b)")


class CutError(Exception):
    """The connection went away while a command ran."""


def host_key(folder: PracticeFolder) -> asyncssh.SSHKey:
    """The server's key, made at the first call."""
    path = folder.state / "host_key"
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519", comment="practice")
        path.touch(mode=0o600)
        key.write_private_key(str(path))
    return asyncssh.read_private_key(str(path))


def public_line(folder: PracticeFolder) -> str:
    """The server's public key as one line."""
    words = host_key(folder).export_public_key("openssh").decode().split()
    return " ".join(words[:2])


class Login(asyncssh.SSHServer):
    """Lets in whoever has a key of the folder's `authorized_keys`."""

    def __init__(self, server: SshServer) -> None:
        self.server = server
        self.connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """The server knows its connections."""
        self.connection = conn
        self.server.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """A lost connection is forgotten."""
        if self.connection is not None:
            self.server.connections.discard(self.connection)

    def begin_auth(self, username: str) -> bool:
        """Everybody has to show a key."""
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys count, and nothing else."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether this key opens this user's door now."""
        path = self.server.machine.folder.authorized_keys
        wanted = key.export_public_key("openssh").decode().split()[1]
        lines = path.read_text().splitlines() if path.exists() else []
        return username == USERNAME and any(wanted in line.split() for line in lines if not line.startswith("#"))


class SshServer:
    """Listens, and runs what is asked for."""

    def __init__(self, machine: Machine, control: Control) -> None:
        self.machine = machine
        self.control = control
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self.sessions: dict[str, Process] = {}
        self.without_exit: set[str] = set()
        self.count = 0
        self.listener: asyncssh.SSHAcceptor | None = None

    async def start(self) -> None:
        """Clients may connect."""
        folder = self.machine.folder
        self.listener = await asyncssh.create_server(
            lambda: Login(self),
            LOOPBACK,
            folder.ports().ssh,
            server_host_keys=[host_key(folder)],
            process_factory=self.attend,
            encoding=None,
            line_editor=False,
            backlog=512,
            reuse_address=True,
        )
        loop = asyncio.get_running_loop()

        def cut(session: str, noexit: bool) -> None:
            loop.call_soon_threadsafe(self.cut, session, noexit)

        self.machine.cut = cut

    def stop(self) -> None:
        """Nobody may connect, and nobody is connected."""
        if self.listener is not None:
            self.listener.close()
        for connection in list(self.connections):
            connection.abort()

    def cut(self, session: str, noexit: bool) -> None:
        """Cut the connection of a session (all, where it is over), or keep its exit status back."""
        process = self.sessions.get(session)
        if noexit:
            self.without_exit.add(session)
        elif process is not None:
            process.channel.get_connection().abort()
        else:
            for connection in list(self.connections):
                connection.abort()

    async def attend(self, process: Process) -> None:
        """One session: record its line, run it, and tell how it ended."""
        self.count += 1
        name = f"{os.getpid()}-{self.count}"
        line = process.command or ""
        recorder = self.machine.recorder
        record = recorder.begin("ssh", "sh", (), line, name)
        self.sessions[name] = process
        fault = self.machine.faults.take(line, lambda: faults.inner_lines(line, PROGRAMS.keys()))
        status: int | None = None
        try:
            status = await self._work(process, name, line, fault)
            self._exit(process, name, status)
        except (CutError, OSError, asyncssh.Error):
            process.close()
        except Exception:
            # asyncssh would close the whole connection.
            traceback.print_exc()
            process.close()
        finally:
            del self.sessions[name]
            self.without_exit.discard(name)
            recorder.end(record, status, fault.action if fault else "")

    def _exit(self, process: Process, name: str, status: int) -> None:
        """Close the channel with what is to be told."""
        if name in self.without_exit:
            process.close()
        elif status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)

    async def _work(self, process: Process, name: str, line: str, fault: Fault | None) -> int:
        """The line, with a fault before, during or after it."""
        if fault is None:
            return await self._run(process, name, line)
        if fault.phase is Phase.AFTER:
            status = await self._run(process, name, line)
            struck = await self._strike(process, name, fault)
            return status if struck is None else struck
        struck = await self._strike(process, name, fault)
        if struck is not None and fault.phase is Phase.BEFORE:
            return struck
        return await self._run(process, name, line)

    async def _strike(self, process: Process, name: str, fault: Fault) -> int | None:
        """Let a fault happen; the exit status, or None where the work is not touched by it."""
        if fault.action in (Action.HANG, Action.SLOW):
            with suppress(TimeoutError):
                await asyncio.wait_for(process.channel.wait_closed(), fault.seconds)
                raise CutError
        if fault.action in (Action.FLOOD, Action.GARBAGE):
            for chunk in chunks(fault):
                process.stdout.write(chunk)
                await process.stdout.drain()
        if fault.action in (Action.FAIL, Action.HANG):
            process.stderr.write(fault.stderr.encode())
            return fault.exit_status
        if fault.action in (Action.KILL_CONNECTION, Action.NOEXIT):
            self.cut(name, fault.action is Action.NOEXIT)
            return CUT_STATUS
        return None

    async def _run(self, process: Process, name: str, line: str) -> int:
        """Run a line; its exit status, or minus the signal that ended it.

        Raises:
            CutError: the connection went away first; the program has its pipes closed, and lives on.
        """
        folder = self.machine.folder
        line = ELSEWHERE.sub(lambda match: f"{folder.root}{match[1].replace('/sys/kernel/random', '')}", line)
        if looked := shortcut.look(self.machine, line, name):
            return await self._look(process, name, looked)
        argv, variables = shortcut.program(self.machine, line, name)
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                cwd=folder.home,
                env={**folder.environment(name), **variables},
                start_new_session=True,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return await Pump(process, child, ours).run()

    async def _look(self, process: Process, name: str, argv: list[str]) -> int:
        """The exit status of a stand-in that only looks, once its words are sent."""
        status, output, errors = await asyncio.to_thread(self.control.look, argv, name)
        process.stdout.write(output)
        process.stderr.write(errors)
        await process.stdout.drain()
        await process.stderr.drain()
        return status


class Pump:
    """Moves bytes between a channel and a program's pipes, until the program is over or the connection cut."""

    def __init__(self, process: Process, child: asyncio.subprocess.Process, pipes: list[int]) -> None:
        self.process = process
        self.child = child
        self.files = {number: os.fdopen(pipe, "rb" if number else "wb", 0) for number, pipe in enumerate(pipes)}
        """Those that no transport has taken over."""

        self.transports: list[asyncio.BaseTransport] = []

    async def run(self) -> int:
        """The program's exit status.

        Raises:
            CutError: the connection went away first.
        """
        feed = asyncio.create_task(self._feed())
        closed = asyncio.create_task(self.process.channel.wait_closed())
        printed = asyncio.gather(self._drain(1, self.process.stdout), self._drain(2, self.process.stderr))
        ended = asyncio.create_task(self.child.wait())
        # A forgotten process object kills its process, and sshd lets it live.
        ALIVE.add(ended)
        ended.add_done_callback(ALIVE.discard)

        async def end() -> int:
            await printed
            return await asyncio.shield(ended)

        over = asyncio.create_task(end())
        everything: list[asyncio.Future[Any]] = [over, closed, feed, printed]
        try:
            await asyncio.wait(everything[:2], return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                raise CutError
            return over.result()
        finally:
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            self._close()

    def _close(self) -> None:
        """Our ends of the pipes are closed."""
        for transport in self.transports:
            if isinstance(transport, asyncio.WriteTransport):
                if not transport.is_closing() or transport.get_write_buffer_size():
                    transport.abort()
            elif not transport.is_closing():
                transport.close()
        for file in self.files.values():
            file.close()

    async def _feed(self) -> None:
        """What the client sends goes in; what a program does not want is thrown away, so that nobody waits."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), self.files[0]
        )
        self.transports.append(transport)
        del self.files[0]
        writer: asyncio.StreamWriter | None = asyncio.StreamWriter(transport, protocol, None, loop)
        while True:
            try:
                data = await self.process.stdin.read(BLOCK)
            except asyncssh.SignalReceived as error:
                with suppress(ProcessLookupError, ValueError):
                    os.killpg(self.child.pid, signal.Signals[f"SIG{error.signal}"])
                continue
            except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
                continue
            except (OSError, asyncssh.Error):
                data = b""
            if not data:
                transport.close()
                return
            if writer is not None:
                try:
                    writer.write(data)
                    await writer.drain()
                except OSError:
                    writer = None

    async def _drain(self, number: int, target: asyncssh.SSHWriter[bytes]) -> None:
        """What the program prints goes out."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self.files[number])
        self.transports.append(transport)
        del self.files[number]
        while data := await reader.read(BLOCK):
            try:
                target.write(data)
                await target.drain()
            except (OSError, asyncssh.Error):
                return
