"""A host for operations that need no server: it keeps a journal, and runs nothing."""

from __future__ import annotations

from typing import Any, NoReturn

from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import LineSink
from alfa_cloud.remote.output import Masker, clean
from alfa_cloud.specs import Layout


class Nowhere:
    """A `Host` without a server."""

    def __init__(self, sink: LineSink, masker: Masker) -> None:
        self._sink = sink
        self._masker = masker

    @property
    def address(self) -> str:
        """There is none."""
        return ""

    @property
    def layout(self) -> Layout:
        """The usual one; nothing is there."""
        return Layout()

    async def log_in_anew(self) -> None:
        """Nobody logs in."""

    async def run(self, command: Command, *, check: bool = True) -> NoReturn:
        """Refuse.

        Raises:
            RuntimeError: always; a playbook without a server runs no command.
        """
        raise RuntimeError(f"{command.argv[0]} was to run without a server")

    async def detached_status(self, name: str) -> int | None:
        """None: nothing runs."""

    async def detached_began(self, name: str) -> bool:
        """False: nothing runs."""
        return False

    async def stop_detached(self, name: str) -> None:
        """Nothing runs."""

    async def http_status(self, domain: str, path: str) -> int:
        """0: nothing answers."""
        return 0

    async def note(self, text: str) -> None:
        """See `Host.note`."""
        for line in clean(text, self._masker):
            await self._sink.note(line)

    async def warn(self, text: str) -> None:
        """See `Host.warn`."""
        for line in clean(text, self._masker):
            await self._sink.warn(line)

    async def report(self, **facts: Any) -> None:
        """See `Host.report`."""
        await self._sink.report(**facts)

    @property
    def facts(self) -> dict[str, Any]:
        """See `Host.facts`."""
        return self._sink.facts
