"""A live session with one server, as steps see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from alfa_cloud.remote.command import Command
from alfa_cloud.specs import Layout, Stream

CAPTURE_BYTES: Final = 1024**2
"""How much of each stream a `Result` holds."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind.

    Args:
        exit_status: 0 is success; there is always one (no status raises `ConnectionLostError`).
        stdout: the first part of what it printed, at most `CAPTURE_BYTES`, not masked; of a detached command it is
            both streams in the order they were printed.
        stderr: the same of its error stream.
    """

    exit_status: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.exit_status == 0

    @property
    def text(self) -> str:
        """Standard output as text, with replacements for what is not UTF-8."""
        return self.stdout.decode("utf-8", "replace")


class LineSink(Protocol):
    """Where an operation's lines go, already masked and cleaned."""

    async def lines(self, stream: Stream, lines: Sequence[str], checkpoint: tuple[str, int] | None = None) -> None:
        """Take lines in their order; the command's output goes on when this returns.

        Args:
            checkpoint: a detached command's name, and how many bytes of its output are in lines up to these: stored
                together with them, or not at all. It comes without lines where it is set back.

        Raises:
            LeaseLostError: this worker was replaced.
        """

    def checkpoint(self, name: str) -> int:
        """The offset stored last for this detached command; 0 at first."""

    async def note(self, text: str, /) -> None:
        """Take a line of our own."""

    async def warn(self, text: str, /) -> None:
        """Take a line of our own, and keep it among the operation's warnings."""

    async def report(self, **facts: Any) -> None:
        """Keep facts (JSON values) as the operation's result."""

    @property
    def facts(self) -> dict[str, Any]:
        """The facts so far."""


class Host(Protocol):
    """A server that runs commands."""

    @property
    def address(self) -> str:
        """The IP address the connection goes to; the host as it was given, before the first connection."""

    @property
    def layout(self) -> Layout:
        """Where things are on this server."""

    async def log_in_anew(self) -> None:
        """Commands from now on run on new connections: sshd keeps a login's shell as it was when one began."""

    async def run(self, command: Command, *, check: bool = True) -> Result:
        """Run a command to its end, streaming its lines to the operation's journal.

        A command with a `detached` name is started once in an operation, and followed: after a lost connection or a
        killed worker the next call attaches again, and the lines go on where they were.

        Raises:
            HostUnreachableError: no connection could be made; nothing was started.
            HostKeyChangedError, LoginRefusedError, AddressRefusedError: the same, and trying again will not help.
            ConnectionLostError: the connection ended first; what happened is unknown.
            CommandTimeoutError: the server ended it after `timeout_s`.
            CommandFailedError: a non-zero exit status, where `check` is set.
            LeaseLostError: this worker was replaced.
        """

    async def detached_status(self, name: str) -> int | None:
        """The exit status that this operation's detached command of that name left; None where there is none.

        Raises:
            HostUnreachableError, ConnectionLostError, LeaseLostError: see `run`.
        """

    async def detached_began(self, name: str) -> bool:
        """Whether this operation's detached command of that name was ever started, whatever became of it.

        Raises:
            HostUnreachableError, ConnectionLostError, LeaseLostError: see `run`.
        """

    async def stop_detached(self, name: str) -> None:
        """This operation's detached command of that name does not run: asked to end, and killed after 10 s.

        Raises:
            CommandFailedError: it still runs.
            HostUnreachableError, ConnectionLostError, LeaseLostError: see `run`.
        """

    async def http_status(self, domain: str, path: str) -> int:
        """The status that this server's nginx answers under a domain, asked from here; 0 where nothing answers."""

    async def note(self, text: str) -> None:
        """Write a line of our own (stream `system`) to the journal."""

    async def warn(self, text: str) -> None:
        """Write a line to the journal and keep it among the operation's warnings."""

    async def report(self, **facts: Any) -> None:
        """Keep facts (JSON values, no secrets) as the operation's result, past a take-over too."""

    @property
    def facts(self) -> dict[str, Any]:
        """What this operation has reported so far, in any of its attempts."""
