"""One call of a stand-in: its arguments, its descriptors, and the way back to the process that waits."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

HANDED_OVER: Final = -1000
"""In place of an exit status: the front became another program."""


class CallerGoneError(Exception):
    """The process that called was ended."""


@dataclass(slots=True)
class Call:
    """What a stand-in was called with."""

    link: socket.socket
    program: str
    cwd: str
    session: str
    user: str
    """Whom `sudo` or `runuser` made the caller; empty for the user who logged in."""
    argv: list[str]
    stdin: int
    stdout: int
    stderr: int
    attended: bool = False
    """Whether the end of the work must be waited for, since a fault follows it."""

    @property
    def line(self) -> str:
        """The name and the arguments, joined by spaces."""
        return " ".join((self.program, *self.argv))

    def out(self, text: str | bytes) -> None:
        """Print to the caller's standard output."""
        self._write(self.stdout, text)

    def err(self, text: str | bytes) -> None:
        """Print to the caller's standard error."""
        self._write(self.stderr, text)

    def _write(self, descriptor: int, text: str | bytes) -> None:
        data = memoryview(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError as error:
            raise CallerGoneError from error

    def read_all(self) -> bytes:
        """The caller's whole standard input."""
        parts = []
        while part := os.read(self.stdin, 1 << 16):
            parts.append(part)
        return b"".join(parts)

    def pause(self, seconds: float | None) -> None:
        """Stand still; None is for ever.

        Raises:
            CallerGoneError: the caller was ended meanwhile.
        """
        readable, _, _ = select.select([self.link], [], [], seconds)
        if readable:
            raise CallerGoneError

    def wait_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Whether something came to hold in time.

        Raises:
            CallerGoneError: the caller was ended meanwhile.
        """
        end = monotonic() + seconds
        while not holds():
            if monotonic() > end:
                return False
            self.pause(0.02)
        return True

    def tell(self, verb: str, *words: str) -> None:
        """Answer the front: `exit N`, `exec ARGV`, `sudo ARGV` or `run ARGV`."""
        data = b"\0".join(os.fsencode(word) for word in (verb, *words))
        self.link.sendall(len(data).to_bytes(8, "big") + data)

    def run(self, argv: Sequence[str]) -> int:
        """Let the front run a real program, with its own descriptors and variables; the exit status.

        Raises:
            CallerGoneError: the caller was ended meanwhile.
        """
        self.tell("run", *argv)
        words = receive_words(self.link)
        return int(words[0])

    def become(self, verb: str, argv: Sequence[str]) -> int:
        """Let the front become a real program, or wait for it where a fault follows; the exit status."""
        if self.attended:
            return self.run(argv)
        self.tell(verb, *argv)
        return HANDED_OVER

    def close(self) -> None:
        """Nothing of the call is open."""
        for descriptor in (self.stdin, self.stdout, self.stderr):
            os.close(descriptor)
        self.link.close()


def receive_words(link: socket.socket) -> list[str]:
    """The words of the front's next message.

    Raises:
        CallerGoneError: there is none.
    """
    size = int.from_bytes(_receive(link, 8), "big")
    return os.fsdecode(_receive(link, size)).split("\0")


def _receive(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            part = link.recv(size - len(data))
        except OSError as error:
            raise CallerGoneError from error
        if not part:
            raise CallerGoneError
        data += part
    return data


def receive_call(link: socket.socket) -> Call:
    """The call that a front makes.

    Raises:
        CallerGoneError: it went away.
    """
    head, descriptors, _, _ = socket.recv_fds(link, 8, 3)
    if len(head) < 8 and head:
        head += _receive(link, 8 - len(head))
    if len(head) < 8 or len(descriptors) != 3:
        for descriptor in descriptors:
            os.close(descriptor)
        raise CallerGoneError
    words = os.fsdecode(_receive(link, int.from_bytes(head, "big"))).split("\0")
    program, cwd, session, user, *argv = words
    stdin, stdout, stderr = descriptors
    return Call(link, program, cwd, session, user, argv, stdin, stdout, stderr)
