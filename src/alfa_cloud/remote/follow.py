"""A detached command from its start, or from where an earlier worker left it, to its exit status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from alfa_cloud.errors import (
    CommandFailedError,
    CommandTimeoutError,
    ConnectionLostError,
    HostUnreachableError,
    LeaseLostError,
)
from alfa_cloud.remote import detached
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.detached import Look, Started, State
from alfa_cloud.remote.host import LineSink, Result
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.process import Consumer
from alfa_cloud.remote.recorder import Recorder
from alfa_cloud.specs import Stream

TIMED_OUT: Final = 124
"""timeout(1): what it exits with where it ended the command."""
ROUNDS: Final = 8
"""How often start and follow may disagree before this is given up."""
FOLLOW_SLACK_S: Final = 30

Execute = Callable[[Command, Consumer, Consumer], Awaitable[int]]
Ask = Callable[[Command], Awaitable[Result]]


class DetachedRun:
    """One detached command of one operation.

    Args:
        execute: runs a command, handing its streams to two consumers.
        ask: runs a quiet command.
        delays: seconds to wait before each new try after the connection was lost; output begins them anew.
    """

    def __init__(
        self,
        command: Command,
        *,
        execute: Execute,
        ask: Ask,
        sink: LineSink,
        masker: Masker,
        operation_dir: str,
        fence: int,
        delays: Sequence[float],
    ) -> None:
        self._command = command
        self._name = command.detached or ""
        self._execute = execute
        self._ask = ask
        self._sink = sink
        self._masker = masker
        self._dir = operation_dir
        self._fence = fence
        self._delays = delays
        self._recorder = self._new_recorder()

    @property
    def last(self) -> list[str]:
        """The last lines of its output."""
        return list(self._recorder.last)

    async def run(self) -> tuple[Look, bytes]:
        """It is done: what it left, and the first part of its output.

        Raises:
            HostUnreachableError: it was not started.
            ConnectionLostError: what became of it is unknown; it may run on.
            CommandFailedError: it could not be started, or died without a status again and again.
            LeaseLostError: a later worker has asked for it.
        """
        set_aside = False
        for _ in range(ROUNDS):
            code = await self._start(set_aside)
            set_aside = code == Started.DIED
            if code == Started.CUT:
                continue
            if code == Started.DIED:
                await self._bury()
                continue
            if code == Started.NEW and self._recorder.received:
                await self._begin_anew([])
            look = await self._follow()
            if look.state is State.DONE:
                await self._recorder.finish()
                return look, await self._head()
        raise ConnectionLostError(f"The command {self._name} neither runs nor ends; what became of it is unknown.")

    async def _start(self, set_aside: bool) -> int:
        try:
            result = await self._ask(detached.start(self._dir, self._fence, self._command, set_aside=set_aside))
        except CommandTimeoutError as error:
            raise ConnectionLostError(f"The server did not start {self._name} in time.") from error
        code = result.exit_status
        if code == Started.FENCED:
            raise LeaseLostError
        if code == Started.DIED_OFTEN:
            raise CommandFailedError(f"{self._name} ended {detached.DEATHS} times without an exit status.")
        if code not in {Started.NEW, Started.HELD, Started.DONE, Started.DIED, Started.CUT}:
            said = self._masker.mask_text(result.stderr.decode("utf-8", "replace")).strip()[-500:]
            detail = f"{self._name} could not be started: {said or code}"
            raise CommandFailedError(detail, exit_status=code, output=said)
        return code

    async def _bury(self) -> None:
        await self._follow()
        await self._recorder.finish()
        await self._begin_anew(
            [f"the earlier run of {self._name} ended without a status (the server restarted?); it is started again"]
        )

    async def _begin_anew(self, lines: list[str]) -> None:
        if self._command.log:
            await self._sink.lines(Stream.SYSTEM, lines, (self._name, 0))
        self._recorder = self._new_recorder(0)

    def _new_recorder(self, offset: int | None = None) -> Recorder:
        sink = self._sink if self._command.log else None
        if offset is None:
            offset = self._sink.checkpoint(self._name) if self._command.log else 0
        self._from_the_start = offset == 0
        return Recorder(Stream.STDOUT, self._masker, sink, name=self._name, offset=offset)

    async def _follow(self) -> Look:
        delays = iter(self._delays)
        while True:
            before = self._recorder.received
            look, reason = await self._attach()
            if look is not None and look.state is not State.RUNNING and self._recorder.received >= look.output_bytes:
                return look
            if self._recorder.received > before:
                delays = iter(self._delays)
                if look is not None:
                    continue
            delay = next(delays, None)
            if delay is None:
                raise ConnectionLostError(f"The connection was lost while {self._name} was running.") from reason
            await asyncio.sleep(delay)

    async def _attach(self) -> tuple[Look | None, Exception | None]:
        said = bytearray()

        async def hear(data: bytes) -> None:
            said.extend(data[-4096:])

        timeout_s = self._command.timeout_s + FOLLOW_SLACK_S
        offset, sudo = self._recorder.received, self._command.sudo
        command = detached.follow(self._dir, self._name, offset, sudo=sudo, timeout_s=timeout_s)
        try:
            status = await self._execute(command, self._recorder.take, hear)
        except (ConnectionLostError, HostUnreachableError) as error:
            return None, error
        if status == TIMED_OUT:
            raise ConnectionLostError(f"{self._name} did not end in its time, and may still be running.")
        return detached.parse_look(bytes(said)), None

    async def _head(self) -> bytes:
        if self._from_the_start:
            return self._recorder.captured
        return (await self._ask(detached.head(self._dir, self._name, sudo=self._command.sudo))).stdout
