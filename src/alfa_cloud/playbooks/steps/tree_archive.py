"""Steps about a client's files: kept as an archive on their own server, and put back."""

from __future__ import annotations

from dataclasses import dataclass

from alfa_cloud.errors import StepFailedError
from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.playbooks.steps.tree import failure, own_folder
from alfa_cloud.remote import dump, files, tree, tree_archive
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.tree_archive import FilesManifest
from alfa_cloud.specs import ClientSpec


async def read_files_manifest(host: Host, spec: ClientSpec, name: str) -> FilesManifest | None:
    """What a verified archive holds; None where there is none, or the file beside it is not the one it tells of.

    Raises:
        RemoteError: it is there and cannot be read.
    """
    text = await files.read(host, tree_archive.manifest_path(spec, name))
    if text is None:
        return None
    manifest = FilesManifest.parse(text)
    size = await host.run(tree_archive.file_size(spec, name), check=False)
    return manifest if size.ok and size.text.strip() == str(manifest.size_bytes) else None


async def _archive_gone(host: Host, spec: ClientSpec, name: str) -> bool:
    return (await host.run(tree_archive.none_left(spec, name), check=False)).ok


def describe_files(manifest: FilesManifest) -> str:
    """What an archive holds, for the log."""
    held = f"{manifest.entries} entries with {manifest.bytes} bytes of files"
    return f"{held} in {manifest.size_bytes} bytes, SHA-256 {manifest.sha256}"


@dataclass(frozen=True, slots=True)
class EnsureFilesArchive(Step):
    """A verified archive of the client's files lies on its server.

    Args:
        name: of `[a-z0-9-]`, the operation's own.
        frozen: whether nothing writes meanwhile, so that not one file may have changed.
    """

    spec: ClientSpec
    name: str
    frozen: bool = False

    def __str__(self) -> str:
        return f"Archive the files of {self.spec.name}"

    @property
    def _detached(self) -> str:
        return f"files-{self.name}"

    async def is_satisfied(self, host: Host) -> bool:
        if await read_files_manifest(host, self.spec, self.name) is not None:
            return True
        # It was there, and a later step of this operation has removed it.
        written = await host.detached_status(self._detached) == 0
        return written and await _archive_gone(host, self.spec, self.name)

    async def apply(self, host: Host) -> None:
        await own_folder(host, self.spec)
        await host.run(files.ensure_folder(dump.folder(self.spec), mode="0700"))
        file = tree_archive.path(self.spec, self.name)
        command = tree_archive.write_archive(tree.storage(self.spec), file, self._detached, frozen=self.frozen)
        result = await host.run(command, check=False)
        if result.exit_status == tree.CHANGED:
            raise StepFailedError("Something wrote to the client's files meanwhile.", code="files_changed")
        if result.exit_status == tree.DAMAGED:
            raise failure("The archive of the files is not whole", result)
        if not result.ok:
            raise failure("The files could not be archived", result)
        await self._sign(host)

    async def _sign(self, host: Host) -> None:
        """The manifest says that the archive is good."""
        counts_path = tree_archive.counts_path(self.spec, self.name)
        manifest = FilesManifest.parse_written(await files.read(host, counts_path) or "")
        path = tree_archive.manifest_path(self.spec, self.name)
        await host.run(files.write_file(path, manifest.render(), mode="0600"))
        await host.run(files.remove_file(counts_path))
        await host.note(f"Archived {describe_files(manifest)}.")

    async def undo(self, host: Host) -> None:
        await host.stop_detached(self._detached)


@dataclass(frozen=True, slots=True)
class RestoreFilesArchive(Step):
    """The client's files were brought back to what an archive holds; its container must not be there meanwhile."""

    spec: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Restore the files of {self.spec.name}"

    @property
    def _detached(self) -> str:
        return f"restore-files-{self.name}"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status(self._detached) == 0

    async def apply(self, host: Host) -> None:
        await own_folder(host, self.spec)
        manifest = await read_files_manifest(host, self.spec, self.name)
        if manifest is None:
            raise StepFailedError(
                f"There is no good archive {self.name} of files on the server; nothing was touched.",
                code="archive_missing",
            )
        file = tree_archive.path(self.spec, self.name)
        command = tree_archive.restore_archive(file, manifest, tree.storage(self.spec), self._detached)
        result = await host.run(command, check=False)
        if result.exit_status == tree.DAMAGED:
            raise StepFailedError(
                f"The archive {self.name} of files is damaged; nothing was touched.", code="archive_damaged"
            )
        if not result.ok:
            raise failure("The files could not be restored", result)
        await host.note(f"Restored {describe_files(manifest)}.")


@dataclass(frozen=True, slots=True)
class RemoveFilesArchive(Step):
    """Nothing of an archive of files is left."""

    spec: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Remove the archive of the files of {self.spec.name}"

    async def is_satisfied(self, host: Host) -> bool:
        return await _archive_gone(host, self.spec, self.name)

    async def apply(self, host: Host) -> None:
        await host.run(tree_archive.remove(self.spec, self.name))
