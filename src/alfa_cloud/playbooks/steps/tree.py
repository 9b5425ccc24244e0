"""Steps about a client's files: sent to another server in two passes, and verified there.

The playbook's own server is the one that they come from. Neither server may have a container that writes to the files
from the second pass on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Elsewhere, Step
from alfa_cloud.playbooks.steps.ownership import Folder, find_folder, foreign, sparing
from alfa_cloud.playbooks.steps.space import free_bytes
from alfa_cloud.remote import files, tree
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host, Result
from alfa_cloud.remote.output import plain_text
from alfa_cloud.remote.relay import relay
from alfa_cloud.remote.tree import Difference, Digest
from alfa_cloud.specs import ClientSpec

SPACE_FACTOR: Final = 1.1
"""Of the files' bytes: what the file system needs beside them."""
MAX_NAMED: Final = 5
TRIES: Final = 3
"""How often files are read again that changed while they were read."""

DIGEST_HERE: Final = "files-digest-here"
DIGEST_THERE: Final = "files-digest-there"

FILES_RATE: Final = 50e6
DATA_RATE: Final = 20e6
"""Bytes a second, as seen between two hosts of the lab: only for an estimate."""
MOVE_S: Final = 15


def _copied(name: str) -> str:
    return f"files-copied-{name}"


def _sent(name: str) -> str:
    return f"files-sent-{name}"


def _mark(detached: str) -> Command:
    """What ended well is known to every worker of the operation."""
    return Command(("true",), sudo=True, detached=detached, log=False)


async def own_folder(host: Host, spec: ClientSpec) -> None:
    """Nothing, where the folder is there and this client's; what lies in it may be replaced then.

    Raises:
        StepFailedError: it is not.
    """
    if await find_folder(host, spec) is not Folder.MARKED:
        raise foreign(f"The folder {spec.directory}")


def failure(what: str, result: Result) -> CommandFailedError:
    """The error for a command that failed, with its last words."""
    words = plain_text(result.stderr or b" / ".join(result.stdout.splitlines()[-3:]))
    return CommandFailedError(f"{what}: {words}", exit_status=result.exit_status)


async def _ask(host: Host, command: Command) -> str:
    """What a quiet command prints; where it fails, the error says why."""
    result = await host.run(command, check=False)
    if not result.ok:
        raise failure("The client's files cannot be read", result)
    return result.text


@dataclass(frozen=True, slots=True)
class CheckFilesSpace(Check):
    """There is room for the client's files on the other server, or they are on their way already.

    Args:
        min_free_bytes: what must be left beside them.
    """

    spec: ClientSpec
    target: Elsewhere
    min_free_bytes: int

    def __str__(self) -> str:
        return f"Check the space for files on {self.target.name}"

    async def check(self, host: Host) -> None:
        begun = not await _is_clear(host, self.spec) or await host.detached_status(DIGEST_HERE) == 0
        if begun:
            return
        size = tree.parse_size(await _ask(host, tree.measure(tree.storage(self.spec))))
        data_bytes = int(host.facts.get("database_space", {}).get("data_bytes", 0))
        needed = int(SPACE_FACTOR * size.bytes) + data_bytes + self.min_free_bytes
        root = self.target.host.layout.root
        free = await free_bytes(self.target.host, root)
        estimate_s = MOVE_S + size.bytes / FILES_RATE + data_bytes / DATA_RATE
        await host.report(
            files_space={
                "entries": size.entries, "files_bytes": size.bytes, "needed_bytes": needed, "free_bytes": free,
            },
            estimate_s=round(estimate_s),
        )  # fmt: skip
        if free < needed:
            raise StepFailedError(
                f"Only {free / 1e9:.1f} GB are free under {root} on {self.target.name}, {needed / 1e9:.1f} GB are "
                f"needed for {size.bytes / 1e9:.1f} GB of files beside the database; make room there, then retry.",
                code="disk_full",
            )


@dataclass(frozen=True, slots=True)
class CopyFiles(Step):
    """The client's files were sent to the other server, while the client worked.

    Taken back, no script writes there any more; what was sent goes with the folder.

    Args:
        name: of `[a-z0-9-]`, the transfer's own.
    """

    stoppable: ClassVar[bool] = True

    spec: ClientSpec
    target: Elsewhere
    target_spec: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Copy files to {self.target.name}"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status(_copied(self.name)) == 0

    async def apply(self, host: Host) -> None:
        await _prepare(host, self.spec)
        await _prepare(self.target.host, self.target_spec)
        size = tree.parse_size(await _ask(host, tree.measure(tree.storage(self.spec))))
        await host.note(f"{size.entries} entries with {size.bytes / 1e6:.1f} MB are sent.")
        moved = await self._send(host)
        await host.note(f"They were sent in {moved / 1e6:.1f} MB.")
        await host.run(_mark(_copied(self.name)))

    async def _send(self, host: Host) -> int:
        pack = tree.pack(tree.storage(self.spec), tree.work(self.spec))
        unpack = tree.unpack(tree.storage(self.target_spec), tree.work(self.target_spec), empty=True)
        for _ in range(TRIES - 1):
            try:
                return await relay(host, pack, self.target.host, unpack)
            except CommandFailedError as error:
                # A folder that becomes a file just then is no other error for tar than a disk that breaks.
                if error.exit_status != tree.UNREADABLE:
                    raise
                await host.note(f"{error.detail}; all is sent again.")
        return await relay(host, pack, self.target.host, unpack)

    async def undo(self, host: Host) -> None:
        for side, spec in ((host, self.spec), (self.target.host, self.target_spec)):
            async with sparing(side):
                await _clear(side, spec)


async def _prepare(host: Host, spec: ClientSpec) -> None:
    await own_folder(host, spec)
    await host.run(files.ensure_folder(tree.work(spec), mode="0700"))


async def _clear(host: Host, spec: ClientSpec) -> None:
    """Nothing of a transfer runs or is left, but for the files."""
    if await find_folder(host, spec) is Folder.MARKED:
        await host.run(tree.settle(tree.work(spec)))
        await host.run(tree.remove(tree.work(spec)))


@dataclass(frozen=True, slots=True)
class SendDifference(Step):
    """The other server has what was written to the files since they were copied, and nothing else.

    Nothing may write to them from here on.

    Args:
        name: as of `CopyFiles`.
    """

    spec: ClientSpec
    target: Elsewhere
    target_spec: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Send the files' difference to {self.target.name}"

    async def is_satisfied(self, host: Host) -> bool:
        return await host.detached_status(_sent(self.name)) == 0

    async def apply(self, host: Host) -> None:
        await _prepare(host, self.spec)
        await _prepare(self.target.host, self.target_spec)
        for _ in range(TRIES):
            difference = await self._compare(host)
            try:
                moved = await self._send(host, difference)
            except CommandFailedError as error:
                if error.exit_status != tree.CHANGED:
                    raise
                await host.note(f"{error.detail}; they are compared again.")
                continue
            sent = f"{difference.files} files with {difference.bytes} bytes sent in {moved} bytes"
            await host.note(f"The difference: {sent}, {difference.dropped} entries dropped.")
            await host.run(_mark(_sent(self.name)))
            return
        raise StepFailedError("Something writes to the client's files again and again.", code="files_changed")

    async def _compare(self, host: Host) -> Difference:
        """What the other server misses, and has too much; it is noted on this one."""
        path, work = tree.storage(self.spec), tree.work(self.spec)
        there = tree.listing(tree.storage(self.target_spec))
        await relay(self.target.host, there, host, tree.compare(path, work))
        return tree.parse_difference(await _ask(host, tree.summary(work)))

    async def _send(self, host: Host, difference: Difference) -> int:
        work, target = tree.work(self.spec), self.target.host
        path_there, work_there = tree.storage(self.target_spec), tree.work(self.target_spec)
        if difference.dropped:
            await relay(host, tree.dropped(work), target, tree.drop_listed(path_there, work_there))
        if not difference.entries:
            return 0
        pack = tree.pack_listed(tree.storage(self.spec), work)
        return await relay(host, pack, target, tree.unpack(path_there, work_there, empty=False))


@dataclass(frozen=True, slots=True)
class VerifyFiles(Step):
    """Both servers have the same files, to the last byte; nothing else of the transfer is left."""

    spec: ClientSpec
    target: Elsewhere
    target_spec: ClientSpec

    def __str__(self) -> str:
        return f"Verify the files on {self.target.name}"

    async def is_satisfied(self, host: Host) -> bool:
        statuses = [
            await host.detached_status(DIGEST_HERE),
            await self.target.host.detached_status(DIGEST_THERE),
        ]
        if statuses != [0, 0]:
            return False
        here, there = await self._digests(host)
        return (
            here == there and await _is_clear(host, self.spec) and await _is_clear(self.target.host, self.target_spec)
        )

    async def apply(self, host: Host) -> None:
        await _prepare(host, self.spec)
        await _prepare(self.target.host, self.target_spec)
        here, there = await self._digests(host)
        if here != there:
            raise StepFailedError(f"The files differ: {await self._differing(host)}", code="files_differ")
        await host.note(f"{here.size.entries} entries with {here.size.bytes} bytes are equal, SHA-256 {here.sha256}.")
        await host.report(files={"entries": here.size.entries, "bytes": here.size.bytes, "sha256": here.sha256})
        await _clear(host, self.spec)
        await _clear(self.target.host, self.target_spec)

    async def _digests(self, host: Host) -> tuple[Digest, Digest]:
        """Of the files here and there, each read once in an operation."""
        return await _both(
            _digest(host, self.spec, DIGEST_HERE), _digest(self.target.host, self.target_spec, DIGEST_THERE)
        )

    async def _differing(self, host: Host) -> str:
        work, there = tree.work(self.spec), tree.digested(tree.work(self.target_spec))
        await relay(self.target.host, there, host, tree.note_differing(work))
        found = await host.run(tree.differing(work))
        names = [plain_text(path) for path in found.stdout.split(b"\0")[:-1]]
        return ", ".join(names[:MAX_NAMED]) + (", and more" if len(names) > MAX_NAMED else "")

    async def undo(self, host: Host) -> None:
        await host.stop_detached(DIGEST_HERE)
        await self.target.host.stop_detached(DIGEST_THERE)


async def _digest(host: Host, spec: ClientSpec, name: str) -> Digest:
    return tree.parse_digest(await _ask(host, tree.digest(tree.storage(spec), tree.work(spec), name)))


async def _both(here: Coroutine[Any, Any, Digest], there: Coroutine[Any, Any, Digest]) -> tuple[Digest, Digest]:
    """Both at the same time; where one fails, the other is not waited for."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(here), group.create_task(there)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()


async def _is_clear(host: Host, spec: ClientSpec) -> bool:
    return (await host.run(files.test_path(tree.work(spec)), check=False)).exit_status == 1
