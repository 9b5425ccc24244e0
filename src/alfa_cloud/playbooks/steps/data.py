"""Steps about a client's data: dumped before what could spoil it, and put back where it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from alfa_cloud.errors import CommandFailedError, RemoteError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.ownership import (
    find_folder,
    find_mariadb_tenant,
    find_postgresql_tenant,
)
from alfa_cloud.playbooks.steps.space import free_bytes
from alfa_cloud.remote import dump, files
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.dump import Manifest
from alfa_cloud.remote.host import Host, Result
from alfa_cloud.remote.output import plain_text
from alfa_cloud.specs import ClientSpec, DatabaseEngine

SPACE_FACTOR: Final = 2.2
"""Of the data: a dump that does not shrink, and what is made of it meanwhile."""
MAX_NAMED: Final = 5
RESTORE_S: Final = dump.DEADLINE_S + dump.COUNT_S + 1200.0
"""How long `restore` may take, with the commands around it."""


async def table_counts(host: Host, spec: ClientSpec) -> dict[str, int]:
    """The rows of each table of the client, all at one moment, by its own login.

    Raises:
        CommandFailedError: the client cannot log in, or a table cannot be read.
    """
    return dump.parse_rows((await ask(host, dump.count_rows(spec))).text)


async def read_manifest(host: Host, spec: ClientSpec, name: str) -> Manifest | None:
    """What a verified dump holds; None where there is none, or the file beside it is not the one it tells of.

    Raises:
        RemoteError: it is there and cannot be read.
    """
    text = await files.read(host, dump.manifest_path(spec, name))
    if text is None:
        return None
    manifest = Manifest.parse(text)
    size = await host.run(dump.file_size(spec, name), check=False)
    whole = size.ok and size.text.strip() == str(manifest.size_bytes)
    return manifest if whole and manifest.engine is spec.engine else None


async def restore(host: Host, spec: ClientSpec, name: str) -> None:
    """The client's database holds exactly what the dump does; within one operation this happens once.

    Nothing may write to the database meanwhile. After a stop at any point it can be called again.

    Raises:
        StepFailedError: there is no such dump, it is damaged (both leave the database as it is), what was restored
            has other rows, or the database is not this client's.
        CommandFailedError: it could not be restored; where the client could not log in, nothing was touched.
    """
    manifest = await read_manifest(host, spec, name)
    if manifest is None:
        raise StepFailedError(f"There is no good dump {name} on the server; nothing was touched.", code="dump_missing")
    await check_tenant(host, spec)
    result = await host.run(dump.restore(spec, name, manifest), check=False)
    if result.exit_status == dump.DAMAGED:
        raise StepFailedError(f"The dump {name} is damaged; nothing was touched.", code="dump_damaged")
    if result.exit_status == dump.DIFFERS:
        differing = differences(manifest.tables, await table_counts(host, spec))
        raise StepFailedError(f"The restored tables have other rows than the dump: {differing}", code="restore_differs")
    if not result.ok:
        raise CommandFailedError(
            f"The dump {name} could not be restored: {_last_words(result)}", exit_status=result.exit_status
        )
    await host.note(f"Restored {describe(manifest)}.")


async def check_tenant(host: Host, spec: ClientSpec) -> None:
    """Nothing, where the client's database may be emptied: it is there no more, or the client could fill it again.

    Raises:
        StepFailedError: the database is not this client's.
        CommandFailedError: the client cannot log in.
    """
    if spec.engine is DatabaseEngine.MARIADB:
        found = (await find_mariadb_tenant(host, spec)).uid
    else:
        found = (await find_postgresql_tenant(host, spec)).owner
    if found is not None:
        await ask(host, dump.log_in(spec))


def differences(expected: Mapping[str, int], found: Mapping[str, int]) -> str:
    """Which tables have other rows than expected, in words; empty where none has."""
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    named = [f"{name}: {found.get(name, 'none')} instead of {expected.get(name, 'none')}" for name in names[:MAX_NAMED]]
    return "; ".join(named) + (f"; and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def describe(manifest: Manifest) -> str:
    """What a dump holds, for the log."""
    rows = sum(manifest.tables.values())
    return f"{len(manifest.tables)} tables with {rows} rows from {manifest.size_bytes} bytes, SHA-256 {manifest.sha256}"


def _last_words(result: Result) -> str:
    return plain_text(b" / ".join(result.stdout.splitlines()[-3:]))


async def ask(host: Host, command: Command) -> Result:
    """The result of a command whose output is not for the log.

    Raises:
        CommandFailedError: it failed; the error says why.
    """
    result = await host.run(command, check=False)
    if not result.ok:
        words = plain_text(result.stderr)
        raise CommandFailedError(f"The client's database cannot be read: {words}", exit_status=result.exit_status)
    return result


async def _is_gone(host: Host, spec: ClientSpec, name: str) -> bool:
    return (await host.run(dump.none_left(spec, name), check=False)).ok


@dataclass(frozen=True, slots=True)
class CheckDumpSpace(Check):
    """There is room for a dump of the client's database, or it was begun already.

    Args:
        min_free_bytes: what must be left beside it.
    """

    spec: ClientSpec
    name: str
    min_free_bytes: int

    def __str__(self) -> str:
        return "Check the space for a dump"

    async def check(self, host: Host) -> None:
        if not await _is_gone(host, self.spec, self.name):
            return
        size = (await ask(host, dump.measure(self.spec))).text.strip()
        if not size.isdecimal():
            raise RemoteError("The database does not say how big it is.")
        needed = int(SPACE_FACTOR * int(size)) + self.min_free_bytes
        root = self.spec.layout.root
        free = await free_bytes(host, root)
        await host.report(space={"needed_bytes": needed, "free_bytes": free})
        if free < needed:
            raise StepFailedError(
                f"Only {free / 1e9:.1f} GB are free under {root}, {needed / 1e9:.1f} GB are needed for a dump of "
                f"{int(size) / 1e9:.1f} GB of data; make room on the server, then retry.",
                code="disk_full",
            )


@dataclass(frozen=True, slots=True)
class EnsureDump(Step):
    """A verified dump of the client's database lies on its server.

    Args:
        name: of `[a-z0-9-]`, the operation's own.
        reason: why it is made, in a word.
        frozen: whether nothing writes meanwhile, so that the database must hold just what the dump does.
    """

    spec: ClientSpec
    name: str
    reason: str
    frozen: bool = False

    def __str__(self) -> str:
        return f"Dump {self.spec.database}"

    async def is_satisfied(self, host: Host) -> bool:
        if await read_manifest(host, self.spec, self.name) is not None:
            return True
        # It was there, and a later step of this operation has removed it.
        written = await host.detached_status(f"dump-{self.name}") == 0
        return written and await _is_gone(host, self.spec, self.name)

    async def apply(self, host: Host) -> None:
        await find_folder(host, self.spec)
        await host.run(files.ensure_folder(dump.folder(self.spec), mode="0700"))
        result = await host.run(dump.write(self.spec, self.name), check=False)
        if result.exit_status == dump.DAMAGED:
            raise StepFailedError(f"The dump is not whole: {_last_words(result)}", code="dump_damaged")
        if not result.ok:
            raise CommandFailedError(
                f"The database could not be dumped: {_last_words(result)}", exit_status=result.exit_status
            )
        await self._verify(host)

    async def _verify(self, host: Host) -> None:
        """The manifest says that the dump is good, or an error that it is not."""
        counts_path = dump.counts_path(self.spec, self.name)
        manifest = dump.parse_written(self.spec, self.reason, await files.read(host, counts_path) or "")
        if self.frozen and (differing := differences(await table_counts(host, self.spec), manifest.tables)):
            raise StepFailedError(f"The dump has other rows than the database: {differing}", code="dump_differs")
        await host.run(files.write_file(dump.manifest_path(self.spec, self.name), manifest.render(), mode="0600"))
        await host.run(files.remove_file(counts_path))
        await host.note(f"Dumped {describe(manifest)}.")

    async def undo(self, host: Host) -> None:
        await host.stop_detached(f"dump-{self.name}")


@dataclass(frozen=True, slots=True)
class RestoreDump(Step):
    """The client's database was brought back to what a dump holds."""

    spec: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Restore {self.spec.database}"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status(f"restore-{self.name}") == 0

    async def apply(self, host: Host) -> None:
        await restore(host, self.spec, self.name)


@dataclass(frozen=True, slots=True)
class RemoveDump(Step):
    """Nothing of a dump is left."""

    spec: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Remove the dump of {self.spec.database}"

    async def is_satisfied(self, host: Host) -> bool:
        return await _is_gone(host, self.spec, self.name)

    async def apply(self, host: Host) -> None:
        await host.run(dump.remove(self.spec, self.name))
