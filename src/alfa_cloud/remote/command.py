"""A command for a server: the one place that turns arguments into a shell line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from typing import Final

KILL_AFTER_S: Final = 10
"""How long `timeout(1)` waits between TERM and KILL."""


@dataclass(frozen=True, slots=True)
class Command:
    """One program with its arguments, as `execve` takes them.

    Args:
        argv: the program and its arguments; a `Secret` among them raises TypeError.
        stdin: what the program reads, secrets included; it is never logged.
        sudo: run as root by `sudo -n`.
        timeout_s: seconds after which the server itself ends the program.
        log: whether the program's output goes to the operation's journal.
        detached: a name, where the program must outlive the connection: within one operation,
            one name is started once, however often it is asked for.
    """

    argv: tuple[str, ...]
    stdin: bytes = field(default=b"", repr=False)
    sudo: bool = False
    timeout_s: float = 60
    log: bool = True
    detached: str | None = None

    def __post_init__(self) -> None:
        if not self.argv:
            raise ValueError("a command needs a program")
        for argument in self.argv:
            if not isinstance(argument, str):
                raise TypeError("an argument list holds plain text only, never a secret")
            if "\0" in argument:
                raise ValueError("an argument must not hold NUL")

    def quiet(self) -> Command:
        """The same command, whose output stays out of the journal."""
        return replace(self, log=False)

    def bounded_argv(self) -> tuple[str, ...]:
        """The arguments with `timeout(1)` and `sudo` before them."""
        argv = self.argv
        argv = ("timeout", f"--kill-after={KILL_AFTER_S}", f"{self.timeout_s:g}", *argv)
        return ("sudo", "-n", "--", *argv) if self.sudo else argv

    def to_shell(self) -> str:
        """The line for the server's shell; the only code that quotes."""
        return shlex.join(self.bounded_argv())

    def __str__(self) -> str:
        return shlex.join(self.argv)
