"""One command on one server, from its start to its exit status, while its output flows to whoever wants it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import asyncssh

from alfa_cloud.errors import ConnectionLostError
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.link import RemoteProcess
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.specs import Address

DEADLINE_SLACK_S: Final = 15
"""How long after the command's own limit, which the server keeps, we stop waiting for it."""
SILENCE_S: Final = 3
"""How long a stream may stay open and silent after the command's end: a daemon it left behind may hold it."""
READ_BYTES: Final = 32 * 1024
"""At a turn of the event loop: a flood must not hold up the others."""
STDIN_BYTES: Final = 64 * 1024

Consumer = Callable[[bytes], Awaitable[None]]


class _Reader(Protocol):
    async def read(self, n: int = -1) -> bytes: ...


async def execute(pool: SshPool, address: Address, command: Command, on_stdout: Consumer, on_stderr: Consumer) -> int:
    """The exit status; 128 and the signal's number where a signal ended the program.

    The next bytes are read when the consumer is done with the last. A cancelled call leaves the program alone.

    Raises:
        AddressRefusedError, HostUnreachableError, HostKeyChangedError, LoginRefusedError: it was not started.
        ConnectionLostError: there is no exit status, or output was lost: what happened is unknown.
    """
    async with pool.process(address, command.to_shell()) as process:
        conversation = _Conversation(process)
        try:
            async with asyncio.timeout(command.timeout_s + DEADLINE_SLACK_S):
                whole = await conversation.hold(command.stdin, on_stdout, on_stderr)
        except TimeoutError as error:
            raise ConnectionLostError(f"The server did not report the end of {command.argv[0]} in time.") from error
    status = process.exit_status
    if process.exit_signal is not None:
        return 128 + getattr(signal, f"SIG{process.exit_signal[0]}", 0)
    if status is None or not whole:
        raise ConnectionLostError(f"The connection ended while {command.argv[0]} was running.")
    return status


class _Conversation:
    """What goes to a program and comes from it, all at once."""

    def __init__(self, process: RemoteProcess) -> None:
        self._process = process
        self._received = 0
        self._waiting = 0

    async def hold(self, stdin: bytes, on_stdout: Consumer, on_stderr: Consumer) -> bool:
        """Both streams are at their end, and the exit status is there if ever; whether all that was printed arrived."""
        pumps = [
            asyncio.create_task(self._pump(self._process.stdout, on_stdout)),
            asyncio.create_task(self._pump(self._process.stderr, on_stderr)),
        ]
        ended = asyncio.create_task(self._end(pumps))
        silent = asyncio.create_task(self._silence())
        tasks = (*pumps, ended, silent, asyncio.create_task(self._write(stdin)))
        try:
            await asyncio.wait({ended, silent}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
                return self._process.whole
            return True
        finally:
            for task in tasks:
                task.cancel()
            self._process.channel.abort()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, pumps: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*pumps)
        await self._process.wait_closed()

    async def _pump(self, reader: _Reader, consume: Consumer) -> None:
        while True:
            self._waiting += 1
            try:
                data = await reader.read(READ_BYTES)
            except (asyncssh.Error, OSError):
                return  # the connection is gone: no exit status will come, and that is what counts
            finally:
                self._waiting -= 1
            if not data:
                return
            self._received += len(data)
            await consume(data)
            await asyncio.sleep(0)

    async def _write(self, stdin: bytes) -> None:
        writer = self._process.stdin
        try:
            for start in range(0, len(stdin), STDIN_BYTES):
                writer.write(stdin[start : start + STDIN_BYTES])
                await writer.drain()
            writer.write_eof()
        except (asyncssh.Error, OSError):
            return  # a program need not read what it is given

    async def _silence(self) -> None:
        await self._process.exited.wait()
        seen = -1
        while seen != self._received or not self._waiting:
            seen = self._received
            await asyncio.sleep(SILENCE_S)
