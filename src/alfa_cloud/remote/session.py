"""A server in the hands of one operation: its commands, and where their lines go."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import Any, Final

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, ConnectionLostError
from alfa_cloud.remote import detached
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.detached import Look, State
from alfa_cloud.remote.follow import TIMED_OUT, DetachedRun
from alfa_cloud.remote.host import LineSink, Result
from alfa_cloud.remote.link import TRANSFER_WINDOW, RemoteProcess
from alfa_cloud.remote.output import Masker, clean
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.probe import probe_http
from alfa_cloud.remote.process import Consumer, execute
from alfa_cloud.remote.recorder import Recorder
from alfa_cloud.specs import Address, Layout, Stream

RECONNECT_AFTER_S: Final = (1.0, 5.0, 25.0)
KILLED: Final = 137
"""timeout(1): what is left where TERM was not enough and KILL was sent."""
ONLY_ROOT: Final = 5


class Begun:
    """The detached commands that one attempt at an operation has begun, on all its servers.

    Args:
        first: no worker had the operation before: what is not in here was never begun, and need not be asked for.
    """

    def __init__(self, *, first: bool) -> None:
        self._first = first
        self._names: set[tuple[int, str]] = set()

    def add(self, address: Address, name: str) -> None:
        """This command may run on that server from now on."""
        self._names.add((address.server_id, name))

    def may(self, address: Address, name: str) -> bool:
        """Whether this command may ever have begun on that server."""
        return not self._first or (address.server_id, name) in self._names


class SshHost:
    """A `Host` over SSH.

    Args:
        sink: where the lines of commands go.
        operation_dir: the folder of this operation's detached commands on the server.
        fence: of the worker's claim; a command asked for with a later one refuses this one.
        masker: the secrets that no line may show.
        guard: called before each command; raises `LeaseLostError` where this worker was replaced.
        delays: seconds to wait before each new try to follow a detached command.
        begun: shared by all hosts of the attempt; without it the server is asked for every detached command.
    """

    def __init__(
        self,
        pool: SshPool,
        address: Address,
        layout: Layout,
        *,
        sink: LineSink,
        operation_dir: str,
        fence: int,
        masker: Masker,
        guard: Callable[[], None],
        delays: Sequence[float] = RECONNECT_AFTER_S,
        begun: Begun | None = None,
    ) -> None:
        self._pool = pool
        self._address = address
        self._layout = layout
        self._sink = sink
        self._operation_dir = operation_dir
        self._fence = fence
        self._masker = masker
        self._guard = guard
        self._delays = delays
        self._begun = begun or Begun(first=False)

    @property
    def address(self) -> str:
        """The IP address the connection goes to; the host as it was given, before the first connection."""
        return self._pool.ip(self._address) or self._address.host

    @property
    def layout(self) -> Layout:
        """Where things are on this server."""
        return self._layout

    async def connect(self) -> str:
        """A connection stands; gives the IP address it goes to.

        Raises:
            AddressRefusedError, HostUnreachableError, HostKeyChangedError, LoginRefusedError: why there is none.
            LeaseLostError: this worker was replaced.
        """
        self._guard()
        return await self._pool.connect(self._address)

    async def log_in_anew(self) -> None:
        """See `Host.log_in_anew`."""
        self._pool.retire(self._address)

    async def run(self, command: Command, *, check: bool = True) -> Result:
        """See `Host.run`.

        Raises:
            RemoteError: see `Host.run`.
            LeaseLostError: this worker was replaced.
        """
        if command.detached is None:
            return await self._run(command, check=check)
        self._begun.add(self._address, command.detached)
        run = DetachedRun(
            command,
            execute=self._execute,
            ask=self._ask,
            sink=self._sink,
            masker=self._masker,
            operation_dir=self._operation_dir,
            fence=self._fence,
            delays=self._delays,
        )
        look, head = await run.run()
        self._judge(command, look.exit_status, look.seconds, run.last, check=check)
        return Result(look.exit_status, head)

    @asynccontextmanager
    async def stream(self, command: Command) -> AsyncIterator[RemoteProcess]:
        """A program that was started, with its streams as bytes; its channel is cut at the end of the block.

        Raises:
            RemoteError: it was not started, or that is unknown.
            LeaseLostError: this worker was replaced.
        """
        self._guard()
        line = command.to_shell()
        async with self._pool.process(self._address, line, window=TRANSFER_WINDOW) as process:
            yield process

    async def detached_status(self, name: str) -> int | None:
        """See `Host.detached_status`.

        Raises:
            RemoteError: see `Host.detached_status`.
            LeaseLostError: this worker was replaced.
        """
        look = await self._look(name)
        return look.exit_status if look.state is State.DONE else None

    async def detached_began(self, name: str) -> bool:
        """See `Host.detached_began`.

        Raises:
            RemoteError: see `Host.detached_began`.
            LeaseLostError: this worker was replaced.
        """
        return (await self._look(name)).state is not State.ABSENT

    async def _look(self, name: str) -> Look:
        self._guard()
        if not self._begun.may(self._address, name):
            return Look(State.ABSENT)
        look = detached.parse_look((await self._run(detached.status(self._operation_dir, name))).stdout)
        if look is None:
            raise ConnectionLostError(f"The server did not say what became of {name}.")
        return look

    async def stop_detached(self, name: str) -> None:
        """See `Host.stop_detached`.

        Raises:
            RemoteError: see `Host.stop_detached`.
            LeaseLostError: this worker was replaced.
        """
        self._guard()
        if not self._begun.may(self._address, name):
            return
        stopped = await self._ask(detached.stop(self._operation_dir, name, sudo=False))
        if stopped.exit_status == ONLY_ROOT:
            stopped = await self._ask(detached.stop(self._operation_dir, name, sudo=True))
        if not stopped.ok:
            raise CommandFailedError(f"{name} could not be stopped.", exit_status=stopped.exit_status)

    async def http_status(self, domain: str, path: str) -> int:
        """See `Host.http_status`."""
        return (await probe_http(self.address, self._layout.http_port, domain, path)).status

    async def note(self, text: str) -> None:
        """Write a line of our own (stream `system`) to the journal."""
        for line in clean(text, self._masker):
            await self._sink.note(line)

    async def warn(self, text: str) -> None:
        """Write a line to the journal and keep it among the operation's warnings."""
        for line in clean(text, self._masker):
            await self._sink.warn(line)

    async def report(self, **facts: Any) -> None:
        """See `Host.report`."""
        await self._sink.report(**facts)

    @property
    def facts(self) -> dict[str, Any]:
        """See `Host.facts`."""
        return self._sink.facts

    async def _run(self, command: Command, *, check: bool = True) -> Result:
        sink = self._sink if command.log else None
        stdout = Recorder(Stream.STDOUT, self._masker, sink)
        stderr = Recorder(Stream.STDERR, self._masker, sink)
        began = time.monotonic()
        try:
            status = await self._execute(command, stdout.take, stderr.take)
        except ConnectionLostError:
            await stdout.finish()
            await stderr.finish()
            raise
        await stdout.finish()
        await stderr.finish()
        self._judge(command, status, time.monotonic() - began, stderr.last or stdout.last, check=check)
        return Result(status, stdout.captured, stderr.captured)

    async def _ask(self, command: Command) -> Result:
        return await self._run(command.quiet(), check=False)

    async def _execute(self, command: Command, on_stdout: Consumer, on_stderr: Consumer) -> int:
        self._guard()
        return await execute(self._pool, self._address, command, on_stdout, on_stderr)

    def _judge(self, command: Command, status: int, seconds: float, last: Iterable[str], *, check: bool) -> None:
        program = self._masker.mask_text(PurePosixPath(command.argv[0]).name)
        if status == TIMED_OUT or (status == KILLED and seconds >= command.timeout_s):
            raise CommandTimeoutError(f"{program} did not end within {command.timeout_s:g} s, and was ended.")
        if check and status != 0:
            lines = list(last)
            detail = ": ".join([f"{program} ended with exit status {status}", *([" / ".join(lines)] if lines else [])])
            raise CommandFailedError(detail, exit_status=status, output="\n".join(lines))
