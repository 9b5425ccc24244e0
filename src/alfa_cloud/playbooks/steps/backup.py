"""Steps about back-ups: measured, brought from another server, and put in the place of the client's data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.playbook import Elsewhere, Step
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings
from alfa_cloud.playbooks.steps.data import RESTORE_S, read_manifest, restore
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.playbooks.steps.tree_archive import RemoveFilesArchive, RestoreFilesArchive, read_files_manifest
from alfa_cloud.remote import backup, dump, files
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.relay import relay
from alfa_cloud.specs import ClientSpec, CloudSettings


async def is_whole(host: Host, spec: ClientSpec, name: str) -> bool:
    """Whether both parts of a back-up are on the server, each with its manifest and of its length."""
    if await read_manifest(host, spec, name) is None:
        return False
    return await read_files_manifest(host, spec, name) is not None


@dataclass(frozen=True, slots=True)
class DropOnFailure(Step):
    """Nothing to do; taken back, nothing of a back-up is left that never became one.

    Args:
        rollout: whose data may be at risk: then the back-up is what they can be brought back from, and stays.
    """

    spec: ClientSpec
    name: str
    rollout: RollOut | None = None

    def __str__(self) -> str:
        return "Make a back-up"

    async def is_satisfied(self, host: Host) -> bool:
        del host
        return True

    async def apply(self, host: Host) -> None:
        del host

    async def undo(self, host: Host) -> None:
        if self.rollout is None or not self.rollout.data_at_risk:
            await RemoveBackup(self.spec, self.name).apply(host)


@dataclass(frozen=True, slots=True)
class SealBackup(Step):
    """What a back-up holds and how it can be known is told: its row is made of that.

    Args:
        reason: why it was made, in a word.
    """

    spec: ClientSpec
    name: str
    reason: str

    def __str__(self) -> str:
        return "Measure the back-up"

    async def is_satisfied(self, host: Host) -> bool:
        return bool(host.facts.get("backup", {}).get("name") == self.name)

    async def apply(self, host: Host) -> None:
        data = await read_manifest(host, self.spec, self.name)
        tree = await read_files_manifest(host, self.spec, self.name)
        if data is None or tree is None:
            raise StepFailedError("The back-up is not whole; retry.", code="backup_damaged")
        size, sha256 = backup.parse_seal((await host.run(backup.seal(self.spec, self.name))).text)
        told = {
            "name": self.name,
            "reason": self.reason,
            "tables": dict(data.tables),
            "files_count": tree.entries,
            "files_bytes": tree.bytes,
            "size_bytes": size,
            "sha256": sha256,
            "version": self.spec.version,
        }
        await host.report(backup=told)


@dataclass(frozen=True, slots=True)
class FetchBackup(Step):
    """A back-up is on the server, brought from the one where it lies.

    Args:
        source: None where it lies on this server, or nowhere.
        source_spec: the client as it is, or was, on that server.
    """

    stoppable: ClassVar[bool] = True
    spec: ClientSpec
    name: str
    sha256: str
    size_bytes: int
    source: Elsewhere | None = None
    source_spec: ClientSpec | None = None

    def __str__(self) -> str:
        return f"Bring the back-up from {self.source.name}" if self.source else "Look at the back-up"

    async def is_satisfied(self, host: Host) -> bool:
        if await is_whole(host, self.spec, self.name):
            return True
        if self.source is None:
            raise StepFailedError(
                f"The back-up {self.name} is not in {dump.folder(self.spec)} any more; take another one.",
                code="backup_missing",
            )
        return False

    async def apply(self, host: Host) -> None:
        if self.source is None or self.source_spec is None:
            return
        await host.run(files.ensure_folder(dump.folder(self.spec), mode="0700"))
        sending = backup.send(self.source_spec, self.name)
        receiving = backup.receive(self.spec, self.name, self.sha256)
        try:
            await relay(self.source.host, sending, host, receiving, about_bytes=self.size_bytes)
        except CommandFailedError as error:
            if error.meta.get("exit_status") == backup.DAMAGED:
                raise StepFailedError(
                    f"The back-up on {self.source.name} is not what it was; nothing was changed.", code="backup_damaged"
                ) from error
            raise

    async def undo(self, host: Host) -> None:
        if self.source is not None:
            await RemoveBackup(self.spec, self.name).apply(host)


@dataclass(frozen=True, slots=True)
class ReplaceData(Step):
    """The client's data is what a back-up holds; taken back, it is what the fresh one does.

    Nothing runs on the data meanwhile.

    Args:
        fresh: empty where there was no data before, so that there is nothing to bring back.
    """

    undo_s: ClassVar[float] = RESTORE_S
    rollout: RollOut
    settings: CloudSettings = field(repr=False)
    name: str
    fresh: str = ""

    def __str__(self) -> str:
        return "Put the back-up's data in place"

    async def is_satisfied(self, host: Host) -> bool:
        return await self._is_done(host, self.name)

    async def apply(self, host: Host) -> None:
        await self._replace(host, self.name)

    async def undo(self, host: Host) -> None:
        self.rollout.data_at_risk = bool(self.fresh)
        await host.stop_detached(f"restore-{self.name}")
        await RestoreFilesArchive(self.rollout.before, self.name).undo(host)
        if not self.fresh:
            return
        if not await self._is_done(host, self.fresh):
            await self._replace(host, self.fresh)
        await EnsureCloudSettings(self.rollout.before, self.rollout.secrets.database_password, self.settings).apply(
            host
        )
        self.rollout.data_at_risk = False

    async def _is_done(self, host: Host, name: str) -> bool:
        database = await host.detached_status(f"restore-{name}") == 0
        return database and await RestoreFilesArchive(self.rollout.before, name).is_satisfied(host)

    async def _replace(self, host: Host, name: str) -> None:
        spec = self.rollout.before
        if await host.detached_status(f"restore-{name}") != 0:
            await restore(host, spec, name)
        files_in_place = RestoreFilesArchive(spec, name)
        if not await files_in_place.is_satisfied(host):
            await files_in_place.apply(host)


@dataclass(frozen=True, slots=True)
class RemoveBackup(Step):
    """Nothing of a back-up is left."""

    spec: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Remove the back-up {self.name}"

    async def is_satisfied(self, host: Host) -> bool:
        gone = await host.run(dump.none_left(self.spec, self.name), check=False)
        return gone.ok and await RemoveFilesArchive(self.spec, self.name).is_satisfied(host)

    async def apply(self, host: Host) -> None:
        await RemoveFilesArchive(self.spec, self.name).apply(host)
        await host.run(dump.remove(self.spec, self.name))
