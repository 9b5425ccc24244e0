"""What a program on one server prints goes into a program on another, through this process, with bounded memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, runtime_checkable

import asyncssh

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, ConnectionLostError
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.follow import TIMED_OUT
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.link import RemoteProcess
from alfa_cloud.remote.output import plain_text

CHUNK_BYTES: Final = 256 * 1024
PROGRESS_S: Final = 3.0
WORDS_BYTES: Final = 4096
"""As much of what a program says beside its data is kept."""
SLACK_S: Final = 30
SIGNALLED: Final = 255


@runtime_checkable
class Streaming(Protocol):
    """A host whose programs can be talked to."""

    def stream(self, command: Command) -> AbstractAsyncContextManager[RemoteProcess]:
        """A program that was started, with its streams as bytes; its channel is cut at the end of the block."""


async def relay(
    source: Host,
    produce: Command,
    target: Host,
    consume: Command,
    *,
    about_bytes: int = 0,
    done: Sequence[int] = (0,),
    progress_s: float = PROGRESS_S,
) -> int:
    """All that `produce` prints was read by `consume`, and both ended well; how many bytes that were.

    The target's journal is told every `progress_s` seconds how far it is. Where a connection was lost, what became of
    it is unknown: look, then do it again. The programs' error streams must not hold secrets.

    Args:
        about_bytes: how much it will be, where that is known.
        done: exit statuses of `consume` that are success; one but 0 ends it early, whatever `produce` does.

    Raises:
        HostUnreachableError, HostKeyChangedError, LoginRefusedError: nothing was moved.
        ConnectionLostError: there is no exit status of one of them.
        CommandFailedError, CommandTimeoutError: one of them failed.
        LeaseLostError: this worker was replaced.
    """
    if not isinstance(source, Streaming) or not isinstance(target, Streaming):
        raise TypeError("these hosts cannot be relayed between")
    async with source.stream(produce) as reader, target.stream(consume) as writer:
        transfer = _Transfer(reader, writer, target, about_bytes, progress_s)
        limit_s = max(produce.timeout_s, consume.timeout_s) + SLACK_S
        try:
            async with asyncio.timeout(limit_s):
                await transfer.run()
        except TimeoutError as error:
            raise ConnectionLostError(f"The transfer did not end within {limit_s:g} s.") from error
    status = None if transfer.cut else _status(writer)
    if status is not None and status not in done:
        raise _failure(consume, status, transfer.words_of_writer)
    if not status:
        produced = _status(reader)
        if produced:
            raise _failure(produce, produced, transfer.words_of_reader)
        if status is None or produced is None:
            raise ConnectionLostError("The connection ended during the transfer.")
    return transfer.moved_bytes


class _Transfer:
    """One program's output on its way into another."""

    def __init__(
        self, reader: RemoteProcess, writer: RemoteProcess, host: Host, about_bytes: int, progress_s: float
    ) -> None:
        self.moved_bytes = 0
        self.cut = False
        """Whether the second program was ended by us: how it took that counts for nothing."""
        self.words_of_reader = bytearray()
        self.words_of_writer = bytearray()
        self._reader = reader
        self._writer = writer
        self._host = host
        self._about_bytes = about_bytes
        self._progress_s = progress_s

    async def run(self) -> None:
        """Both programs have ended, or the second one has, and takes nothing more."""
        ended = asyncio.create_task(self._writer.wait_closed())
        tasks = [
            asyncio.create_task(self._pump()),
            asyncio.create_task(self._keep(self._reader.stderr, self.words_of_reader)),
            asyncio.create_task(self._keep(self._writer.stderr, self.words_of_writer)),
            asyncio.create_task(self._keep(self._writer.stdout, self.words_of_writer)),
        ]
        try:
            done, _ = await asyncio.wait({ended, tasks[0]}, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0] in done:
                tasks[0].result()
            await ended
            await asyncio.gather(*tasks[2:])
            if self._writer.exit_status == 0:
                await tasks[0]
                await self._reader.wait_closed()
        finally:
            for task in (ended, *tasks):
                task.cancel()
            await asyncio.gather(ended, *tasks, return_exceptions=True)

    async def _pump(self) -> None:
        told = time.monotonic()
        while data := await self._read():
            try:
                self._writer.stdin.write(data)
                await self._writer.stdin.drain()
            except (asyncssh.Error, OSError):
                return  # it has ended; how, its exit status tells
            self.moved_bytes += len(data)
            if time.monotonic() - told >= self._progress_s:
                told = time.monotonic()
                await self._host.note(self._words())
        await self._end_input()

    async def _read(self) -> bytes:
        try:
            return await self._reader.stdout.read(CHUNK_BYTES)
        except (asyncssh.Error, OSError):
            return b""

    async def _end_input(self) -> None:
        """The second program is told the end only where it is one: what was cut short must not look whole."""
        await self._reader.wait_closed()
        if self._reader.exit_status == 0 and self._reader.whole:
            self._writer.stdin.write_eof()
        else:
            self.cut = not self._writer.exited.is_set()
            self._writer.channel.abort()

    def _words(self) -> str:
        moved = f"{self.moved_bytes / 1e6:.0f}"
        return f"{moved} of about {self._about_bytes / 1e6:.0f} MB" if self._about_bytes else f"{moved} MB"

    async def _keep(self, stream: Any, words: bytearray) -> None:
        try:
            while data := await stream.read(CHUNK_BYTES):
                words += data[: WORDS_BYTES - len(words)]
        except (asyncssh.Error, OSError):
            return


def _status(process: RemoteProcess) -> int | None:
    """A program's exit status; None where the connection ended first."""
    return SIGNALLED if process.exit_signal is not None else process.exit_status


def _failure(command: Command, status: int, words: bytearray) -> CommandFailedError | CommandTimeoutError:
    if status == TIMED_OUT:
        return CommandTimeoutError(f"{command.argv[0]} did not end within {command.timeout_s:g} s, and was ended.")
    said = plain_text(bytes(words))
    return CommandFailedError(f"{command.argv[0]} ended with exit status {status}: {said}", exit_status=status)
