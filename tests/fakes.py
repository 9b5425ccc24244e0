"""Doubles: a host that keeps state, without a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alfa_cloud.errors import CommandFailedError
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.specs import Layout

Answer = Callable[[Command], Result | None]


@dataclass
class FakeHost:
    """A host that answers as it is told, and remembers what it was asked.

    Args:
        answer: gives a command's result; None is success without output.
    """

    answer: Answer = lambda _: None
    layout: Layout = field(default_factory=Layout)
    address: str = "192.0.2.1"
    commands: list[Command] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    http: int = 200
    logins: int = 1

    async def run(self, command: Command, *, check: bool = True) -> Result:
        """What the test says."""
        self.commands.append(command)
        result = self.answer(command) or Result(0)
        if command.detached:
            self.statuses[command.detached] = result.exit_status
        if check and not result.ok:
            raise CommandFailedError(
                f"{command.argv[0]} ended with {result.exit_status}.", exit_status=result.exit_status
            )
        return result

    async def log_in_anew(self) -> None:
        """Remember it."""
        self.logins += 1

    async def detached_status(self, name: str) -> int | None:
        """The status of a detached command that was run."""
        return self.statuses.get(name)

    async def detached_began(self, name: str) -> bool:
        """Whether a detached command was run."""
        return name in self.statuses

    async def stop_detached(self, name: str) -> None:
        """Nothing runs here."""

    async def http_status(self, domain: str, path: str) -> int:
        """What the test says."""
        return self.http

    async def note(self, text: str) -> None:
        """Remember a line."""
        self.notes.append(text)

    async def warn(self, text: str) -> None:
        """Remember a warning."""
        self.warnings.append(text)

    async def report(self, **facts: Any) -> None:
        """Remember facts."""
        self.facts |= facts

    def lines(self) -> list[str]:
        """The commands as people read them."""
        return [str(command) for command in self.commands]
