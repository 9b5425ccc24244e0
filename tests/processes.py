"""Processes of the service, forked from one that has imported it: a start takes tens of milliseconds, not two seconds.

A forked process differs from `alfa-cloud worker` in its imports alone; `tests/sandbox/test_run.py` starts the command
itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from ctypes import CDLL
from pathlib import Path
from typing import Final

from alfa_cloud import cli

PR_SET_PDEATHSIG: Final = 1
FORKSERVER: Final = multiprocessing.get_context("forkserver")
PRELOADED: Final = """
    alfa_cloud.api.server alfa_cloud.bootstrap alfa_cloud.jobs.worker tests.processes
    anyio._backends._asyncio encodings.idna httpcore._backends.auto
    uvicorn.lifespan.on uvicorn.loops.uvloop uvicorn.protocols.http.httptools_impl uvloop
"""
FORKSERVER.set_forkserver_preload(PRELOADED.split())


class Process:
    """A command of the service, with what tests use of `subprocess.Popen`; it dies with the process that forked it."""

    def __init__(self, args: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self.args = tuple(args)
        self._process = FORKSERVER.Process(target=run, args=(self.args, dict(environment), log), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, once it has ended; a signal's number below zero."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it did not end within `timeout` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def stopped(self) -> bool:
        """Whether a signal halted it."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def run(args: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Be the command: in a session, with variables and output of its own."""
    CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    with log.open("wb") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(cli.main(list(args)))
