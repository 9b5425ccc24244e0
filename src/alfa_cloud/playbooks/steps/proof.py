"""Steps that prove a back-up: read whole, restored into a scratch database beside its client, and taken away again.

The scratch has a database, a login, a folder and an archive folder of its own: nothing of the client is touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.backup import is_whole
from alfa_cloud.playbooks.steps.client import EnsureDatabase, EnsureFolder
from alfa_cloud.playbooks.steps.data import RemoveDump, read_manifest, restore
from alfa_cloud.playbooks.steps.ownership import Folder, find_folder, has_tenant, sparing
from alfa_cloud.playbooks.steps.space import free_bytes
from alfa_cloud.remote import backup, dump, files, mariadb, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.output import plain_text
from alfa_cloud.specs import ClientSpec, DatabaseEngine, Secret

DAMAGED: Final = "backup_damaged"
DAMAGES: Final = frozenset({"dump_missing", "dump_damaged", "restore_differs"})
"""What a failed restore says where the dump is the cause."""
KILLED: Final = frozenset({137, 143})
"""Exit statuses of a restore that somebody ended: they say nothing of the dump."""
MAX_WORDS: Final = 300
SPACE_FACTOR: Final = 12
"""Of a dump's file: what its rows, their indexes and the database's log take at most, once it is restored."""

# Both are on one file system; a copy is for those that know no hard links. A dump is never written in place.
BORROW: Final = """
set -eu
from=$1 to=$2
for end in "" .json; do
    ln -f -- "$from$end" "$to$end" 2>/dev/null || cp --reflink=auto -- "$from$end" "$to$end"
done
"""


def scratch_of(spec: ClientSpec) -> ClientSpec:
    """What a client's back-up is restored into; its name is none that a client can have."""
    name, database = f"proof_{spec.id}", f"alfa_proof_{spec.id}"
    return replace(spec, uid=f"{spec.uid}-proof", name=name, database=database, database_user=database, page=None)


async def damaged(host: Host, what: str) -> StepFailedError:
    """The error for a back-up that is not what it was; the operation's result says so too."""
    await host.report(damage=what)
    return StepFailedError(f"{what} Another back-up is made at once.", code=DAMAGED)


@dataclass(frozen=True, slots=True)
class CheckSeal(Step):
    """All of the back-up was read, and is byte for byte what it was when it was made."""

    spec: ClientSpec
    name: str
    sha256: str
    size_bytes: int

    def __str__(self) -> str:
        return "Read the back-up whole"

    async def is_satisfied(self, host: Host) -> bool:
        return bool(host.facts.get("sha256") == self.sha256)

    async def apply(self, host: Host) -> None:
        if not await is_whole(host, self.spec, self.name):
            raise await damaged(host, f"The back-up is not in {dump.folder(self.spec)} as it was put there.")
        result = await host.run(backup.seal(self.spec, self.name), check=False)
        if result.exit_status in KILLED:
            raise CommandFailedError("The back-up could not be read to its end.", exit_status=result.exit_status)
        if not result.ok:
            raise await damaged(host, f"The back-up cannot be read: {plain_text(result.stdout)[-MAX_WORDS:]}")
        if backup.parse_seal(result.text) != (self.size_bytes, self.sha256):
            raise await damaged(host, "The back-up is not what it was: its SHA-256 is another one.")
        await host.report(sha256=self.sha256)

    async def undo(self, host: Host) -> None:
        await host.stop_detached(f"seal-{self.name}")
        path = f"{dump.path(self.spec, self.name)}.seal"
        await host.run(Command(("rm", "-f", "--", path, f"{path}.size"), sudo=True))


@dataclass(frozen=True, slots=True)
class CheckScratchSpace(Check):
    """There is room for what the back-up's dump is restored into.

    Args:
        min_free_bytes: what must be left beside it.
    """

    spec: ClientSpec
    name: str
    min_free_bytes: int

    def __str__(self) -> str:
        return "Check the space for a scratch database"

    async def check(self, host: Host) -> None:
        if await host.detached_status(f"restore-{self.name}") is not None:
            return
        manifest = await read_manifest(host, self.spec, self.name)
        if manifest is None:
            raise await damaged(host, "There is no good dump in the back-up.")
        needed = SPACE_FACTOR * manifest.size_bytes + self.min_free_bytes
        root = self.spec.layout.root
        free = await free_bytes(host, root)
        if free < needed:
            raise StepFailedError(
                f"Only {free / 1e9:.1f} GB are free under {root}, {needed / 1e9:.1f} GB may be needed to restore the "
                "back-up beside its client; make room on the server, then retry.",
                code="disk_full",
            )


@dataclass(frozen=True, slots=True)
class ClearScratch(Step):
    """What an earlier proof has left is gone; once in an operation, so that its own work stays."""

    scratch: ClientSpec
    password: Secret = field(repr=False)

    def __str__(self) -> str:
        return "Take away what an earlier proof has left"

    async def is_satisfied(self, host: Host) -> bool:
        return bool(host.facts.get("cleared"))

    async def apply(self, host: Host) -> None:
        await remove_scratch(host, self.scratch, self.password)
        await host.report(cleared=True)


@dataclass(frozen=True, slots=True)
class EnsureLogin(Step):
    """The scratch's own login can be used on the server; only root can read it."""

    scratch: ClientSpec
    password: Secret = field(repr=False)

    def __str__(self) -> str:
        return f"Login of {self.scratch.database}"

    def _file(self) -> tuple[str, bytes]:
        engine = mariadb if self.scratch.engine is DatabaseEngine.MARIADB else postgresql
        return engine.login_path(self.scratch), engine.login_file(self.scratch, self.password)

    async def is_satisfied(self, host: Host) -> bool:
        return await files.holds(host, *self._file())

    async def apply(self, host: Host) -> None:
        path, content = self._file()
        await host.run(files.write_file(path, content, mode="0600"))


@dataclass(frozen=True, slots=True)
class BorrowDump(Step):
    """The back-up's dump lies in the scratch's own archive folder too."""

    spec: ClientSpec
    scratch: ClientSpec
    name: str

    def __str__(self) -> str:
        return "Lay the dump beside the scratch database"

    async def is_satisfied(self, host: Host) -> bool:
        return await read_manifest(host, self.scratch, self.name) is not None

    async def apply(self, host: Host) -> None:
        await host.run(files.ensure_folder(dump.folder(self.scratch), mode="0700"))
        paths = dump.path(self.spec, self.name), dump.path(self.scratch, self.name)
        await host.run(Command(("sh", "-c", BORROW, "alfa-borrow", *paths), sudo=True, timeout_s=dump.COUNT_S))

    async def undo(self, host: Host) -> None:
        await RemoveDump(self.scratch, self.name).apply(host)


@dataclass(frozen=True, slots=True)
class RestoreScratch(Step):
    """The dump was restored by a login of its own, and every table has the rows that it had."""

    scratch: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Restore into {self.scratch.database}"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status(f"restore-{self.name}") == 0

    async def apply(self, host: Host) -> None:
        try:
            await restore(host, self.scratch, self.name)
        except StepFailedError as error:
            if error.step_code not in DAMAGES:
                raise
            raise await damaged(host, error.detail) from error
        except CommandFailedError as error:
            began = await host.detached_status(f"restore-{self.name}") is not None
            if not began or error.meta.get("exit_status") in KILLED:
                raise
            raise await damaged(host, error.detail) from error

    async def undo(self, host: Host) -> None:
        await host.stop_detached(f"restore-{self.name}")


@dataclass(frozen=True, slots=True)
class RemoveScratch(Step):
    """Nothing of the proof is left on the server."""

    scratch: ClientSpec
    password: Secret = field(repr=False)

    def __str__(self) -> str:
        return f"Remove {self.scratch.database}"

    async def is_satisfied(self, host: Host) -> bool:
        if (await host.run(files.test_path(dump.folder(self.scratch)), check=False)).ok:
            return False
        async with sparing(host):
            return await find_folder(host, self.scratch) is Folder.ABSENT and not await has_tenant(host, self.scratch)
        return True

    async def apply(self, host: Host) -> None:
        await remove_scratch(host, self.scratch, self.password)


async def remove_scratch(host: Host, scratch: ClientSpec, password: Secret) -> None:
    """Nothing of a scratch is left, whichever back-up it was for.

    Raises:
        RemoteError: the server could not be asked.
    """
    await EnsureDatabase(scratch, password).undo(host)
    await EnsureFolder(scratch).undo(host)
    await host.run(Command(("rm", "-rf", "--one-file-system", "--", dump.folder(scratch)), sudo=True, timeout_s=300))
