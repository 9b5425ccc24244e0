"""Steps that bring a client's database to another server, and prove that it is the same there.

The playbook's own server is the one that it comes from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from alfa_cloud.errors import CommandFailedError, RemoteError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Elsewhere, Step
from alfa_cloud.playbooks.steps.data import MAX_NAMED, SPACE_FACTOR, ask, check_tenant, differences, table_counts
from alfa_cloud.playbooks.steps.space import free_bytes
from alfa_cloud.remote import dump, dump_stream, files
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.relay import relay
from alfa_cloud.specs import ClientSpec

Checksums = Mapping[str, tuple[int, str]]
"""The rows and the checksum of each table."""


@dataclass(frozen=True, slots=True)
class CheckDatabaseSpace(Check):
    """There is room for the client's database on the other server, or there was when the operation began.

    Args:
        min_free_bytes: what must be left beside it.
    """

    spec: ClientSpec
    target: Elsewhere
    min_free_bytes: int

    def __str__(self) -> str:
        return f"Check the space for the database on {self.target.name}"

    async def check(self, host: Host) -> None:
        if "database_space" in host.facts:
            return
        size = (await ask(host, dump.measure(self.spec))).text.strip()
        if not size.isdecimal():
            raise RemoteError("The database does not say how big it is.")
        needed = int(SPACE_FACTOR * int(size)) + self.min_free_bytes
        root = self.target.host.layout.root
        free = await free_bytes(self.target.host, root)
        if free < needed:
            raise StepFailedError(
                f"Only {free / 1e9:.1f} GB are free under {root} on {self.target.name}, {needed / 1e9:.1f} GB are "
                f"needed for {int(size) / 1e9:.1f} GB of data; make room there, then retry.",
                code="disk_full",
            )
        await host.report(database_space={"needed_bytes": needed, "free_bytes": free, "data_bytes": int(size)})


@dataclass(frozen=True, slots=True)
class CopyDatabase(Step):
    """The client's database on the other server was filled with what is in this one's; a stop begins it anew.

    Args:
        target_spec: the client there, with its folder and its login.
        name: of the copy, the operation's own.
    """

    spec: ClientSpec
    target: Elsewhere
    target_spec: ClientSpec
    name: str

    stoppable: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"Copy {self.spec.database} to {self.target.name}"

    @property
    def _done(self) -> Command:
        """Leaves the mark on the other server that this operation's copy came to its end."""
        return Command(("true",), sudo=True, detached=f"copied-{self.name}", log=False)

    async def is_satisfied(self, host: Host) -> bool:
        return await self.target.host.detached_status(self._done.detached or "") == 0

    async def apply(self, host: Host) -> None:
        there = self.target.host
        # First: what a lost connection left may be emptying the database, and nobody can log in for a moment.
        await there.run(dump_stream.stop(self.target_spec))
        await check_tenant(there, self.target_spec)
        began = time.monotonic()
        moved_bytes = await self._relay(host)
        took_s = time.monotonic() - began
        tables = await self._verify()
        await there.run(files.remove_file(dump_stream.counted_path(self.target_spec)))
        await there.run(self._done)
        await host.note(
            f"Copied {len(tables)} tables with {sum(tables.values())} rows, {moved_bytes} bytes on the way, "
            f"in {took_s:.1f} s."
        )

    async def undo(self, host: Host) -> None:
        await self.target.host.run(dump_stream.stop(self.target_spec))

    async def _relay(self, host: Host) -> int:
        produce, consume = dump_stream.produce(self.spec), dump_stream.consume(self.target_spec)
        try:
            return await relay(host, produce, self.target.host, consume)
        except CommandFailedError as error:
            if error.exit_status == dump.DAMAGED:
                raise StepFailedError(f"The dump is not whole: {error.detail}", code="dump_damaged") from error
            raise

    async def _verify(self) -> dict[str, int]:
        """The rows of each table there, or an error where the dump had others."""
        there, path = self.target.host, dump_stream.counted_path(self.target_spec)
        sent = dump.parse_counted(self.target_spec, await files.read(there, path) or "")
        found = await table_counts(there, self.target_spec)
        if differing := differences(sent, found):
            raise StepFailedError(f"The copied tables have other rows than the dump: {differing}", code="copy_differs")
        return found


@dataclass(frozen=True, slots=True)
class VerifyDatabase(Check):
    """Every table has the same rows with the same content on both servers; nobody may write to either."""

    spec: ClientSpec
    target: Elsewhere
    target_spec: ClientSpec

    def __str__(self) -> str:
        return f"Verify {self.target_spec.database} on {self.target.name}"

    async def check(self, host: Host) -> None:
        (here, here_s), (there, there_s) = await self._both(host)
        names = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
        if names:
            more = f"; and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            named = "; ".join(_difference(name, here, there) for name in names[:MAX_NAMED])
            raise StepFailedError(
                f"The database on {self.target.name} is another one: {named}{more}", code="database_differs"
            )
        await host.note(
            f"{len(here)} tables with {sum(rows for rows, _ in here.values())} rows are the same on "
            f"{self.target.name}; read in {here_s:.1f} s here and {there_s:.1f} s there."
        )

    async def _both(self, host: Host) -> tuple[tuple[Checksums, float], tuple[Checksums, float]]:
        try:
            async with asyncio.TaskGroup() as group:
                here = group.create_task(_checksums(host, self.spec))
                there = group.create_task(_checksums(self.target.host, self.target_spec))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return here.result(), there.result()


async def _checksums(host: Host, spec: ClientSpec) -> tuple[Checksums, float]:
    """What the client's tables hold, and how many seconds it took to read them."""
    began = time.monotonic()
    return dump.parse_checksums((await ask(host, dump.checksums(spec))).text), time.monotonic() - began


def _difference(name: str, here: Checksums, there: Checksums) -> str:
    rows = [str(side[name][0]) if name in side else "no" for side in (here, there)]
    if rows[0] == rows[1]:
        return f"{name} has other content in its {rows[0]} rows"
    return f"{name} has {rows[1]} rows instead of {rows[0]}" if name in there else f"{name} is missing"
