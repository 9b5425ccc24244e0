"""The sandbox's child programs: each with a log, started again where it dies, ended in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

from alfa_cloud.sandbox import child

FIRST_BACKOFF_S: Final = 0.5
LAST_BACKOFF_S: Final = 30.0
WELL_AFTER_S: Final = 30.0
"""Who ran this long is well again: the next wait is the first one."""

STOP_S: Final = 30.0

Say = Callable[[str], None]


def our_argv(*words: str) -> list[str]:
    """How a command of `alfa-cloud` is run with this Python."""
    return [sys.executable, "-m", "alfa_cloud.cli", *words]


class Program:
    """One child program."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], logs: Path, say: Say) -> None:
        self.name = name
        self.argv = child.tied(argv, signal.SIGTERM)
        self.env = child.package_environment(env)
        self.log = logs / f"{name}.log"
        self.say = say
        self.process: asyncio.subprocess.Process | None = None
        self.stopping = False

    async def run(self) -> int:
        """Run it once; its exit status, or minus the signal that ended it."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self.env,
                start_new_session=True,
            )  # fmt: skip
        try:
            return await self.process.wait()
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def keep(self) -> None:
        """Run it again whenever it ends, after longer and longer waits, until it is stopped."""
        pause = FIRST_BACKOFF_S
        while not self.stopping:
            began = monotonic()
            status = await self.run()
            if self.stopping:
                return
            pause = FIRST_BACKOFF_S if monotonic() - began > WELL_AFTER_S else pause
            self.say(f"{self.name} ended with {status}; again in {pause:g} s. Its last words, of {self.log}:")
            self.say(child.tail(self.log))
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_BACKOFF_S)

    async def stop(self) -> None:
        """It is over, by force where it does not listen."""
        self.stopping = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """Its whole session is told to die at once."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
