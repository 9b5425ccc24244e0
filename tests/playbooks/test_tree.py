"""A client's files are copied, verified, archived and put back, on a practice server."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from alfa_cloud.errors import CommandFailedError, ConnectionLostError, RemoteError, StepFailedError
from alfa_cloud.playbooks.playbook import Elsewhere, Playbook
from alfa_cloud.playbooks.steps.client import EnsureFolder
from alfa_cloud.playbooks.steps.tree import CheckFilesSpace, CopyFiles, SendDifference, VerifyFiles
from alfa_cloud.playbooks.steps.tree_archive import (
    EnsureFilesArchive,
    RemoveFilesArchive,
    RestoreFilesArchive,
    read_files_manifest,
)
from alfa_cloud.remote import dump, files, requirements, tree, tree_archive
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.remote.session import SshHost
from alfa_cloud.remote.tree_archive import FilesManifest
from alfa_cloud.specs import ClientSpec, Layout
from tests.fakes import FakeHost
from tests.playbooks.conftest import Lines, Site, carry_out
from tests.playbooks.specs import make_spec

pytestmark = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")

NUMBERS = count(301)
MANIFEST = FilesManifest(3, 10, 20, "0" * 64, "2026-01-02T03:04:05Z")


@dataclass
class Two:
    """A client here and there, each server in the hands of one operation."""

    site: Site
    lines: Lines
    spec: ClientSpec
    there: ClientSpec
    host: SshHost
    target: Elsewhere

    @property
    def storage(self) -> Path:
        return Path(tree.storage(self.spec))

    @property
    def arrived(self) -> Path:
        return Path(tree.storage(self.there))

    def again(self) -> Two:
        """The same for another operation."""
        return two_of(self.site, self.lines, self.spec, self.there)

    def steps(self) -> list[CopyFiles | SendDifference | VerifyFiles]:
        ends = self.spec, self.target, self.there
        return [CopyFiles(*ends, "move-1"), SendDifference(*ends, "move-1"), VerifyFiles(*ends)]

    def same(self) -> bool:
        return picture(self.storage) == picture(self.arrived)

    def left(self) -> list[Path]:
        """What a transfer has left behind, beside the files."""
        return [path for spec in (self.spec, self.there) for path in Path(spec.directory).glob("transfer*")]


def two_of(site: Site, lines: Lines, spec: ClientSpec, there: ClientSpec) -> Two:
    number = next(NUMBERS)
    target = Elsewhere("other", site.host(lines, f"there-{number}"))
    return Two(site, lines, spec, there, site.host(lines, f"here-{number}"), target)


def picture(root: Path) -> list[tuple[object, ...]]:
    """All that counts about a tree."""
    found: list[tuple[object, ...]] = []
    for path in sorted([root, *root.rglob("*")]):
        stat = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found.append((path.relative_to(root), stat.st_mode, stat.st_mtime_ns, content))
    return found


@pytest.fixture
async def two(site: Site, lines: Lines) -> AsyncIterator[Two]:
    """A client with files."""
    here, there = (
        make_spec(id=number, uid=f"00000000-0000-4000-8000-{number:012}", layout=site.practice.layout)
        for number in (next(NUMBERS), next(NUMBERS))
    )
    found = two_of(site, lines, here, there)
    await carry_out(Playbook([EnsureFolder(here), EnsureFolder(there)]), found.host)
    for name in ("logs", "a\nb", "empty"):
        (found.storage / name).mkdir()
        (found.storage / name / "пусто 😀").write_text("")
        (found.storage / name / "big").write_bytes(os.urandom(200_000))
    (found.storage / "up").symlink_to("../../..")
    (found.storage / "empty" / "big").unlink()
    yield found
    site.practice.clear_faults()


async def test_files_are_copied_while_the_client_works_and_then_are_the_same(two: Two) -> None:
    copy, send, verify = two.steps()
    check = CheckFilesSpace(two.spec, two.target, 0)
    assert await carry_out(Playbook([check, copy]), two.host) == ["CopyFiles"]
    (two.storage / "logs" / "big").write_text("less")
    (two.storage / "empty" / "пусто 😀").unlink()
    shutil.rmtree(two.storage / "a\nb")
    assert await carry_out(Playbook([check, copy, send, verify]), two.host) == ["SendDifference", "VerifyFiles"]
    assert two.same()
    assert any("1 files with 4 bytes sent in " in note and "4 entries dropped" in note for note in two.lines.notes)
    assert two.lines.facts["files"]["entries"] == len(picture(two.storage)) - 1
    assert two.lines.facts["files_space"]["files_bytes"] == 400_000
    assert two.left() == []
    assert await carry_out(Playbook([check, copy, send, verify]), two.host) == []


async def test_another_operation_begins_anew(two: Two) -> None:
    await two.steps()[0].apply(two.host)
    (two.arrived / "left").write_text("of an earlier one")
    (two.storage / "new").write_text("new")
    other = two.again()
    assert len(await carry_out(Playbook(other.steps()), other.host)) == 3
    assert two.same()


async def test_files_that_differ_are_named(two: Two) -> None:
    copy, send, verify = two.steps()
    await carry_out(Playbook([copy, send]), two.host)
    old = (two.arrived / "logs" / "big").stat()
    (two.arrived / "logs" / "big").write_bytes(bytes(old.st_size))
    os.utime(two.arrived / "logs" / "big", ns=(1, old.st_mtime_ns))
    for number in range(6):
        (two.arrived / "a\nb" / f"x{number}").write_text("more")
    with pytest.raises(StepFailedError, match=r"a b, \./a b/x0, .*, and more") as caught:
        await verify.apply(two.host)
    assert caught.value.step_code == "files_differ"
    assert not await verify.is_satisfied(two.host)
    await verify.undo(two.host)
    await copy.undo(two.host)
    assert two.left() == []


async def test_a_folder_of_somebody_else_is_left_alone(two: Two) -> None:
    Path(two.there.directory, files.MARK).write_text("somebody")
    (two.arrived / "kept").write_text("kept")
    for step in two.steps():
        with pytest.raises(StepFailedError) as caught:
            await step.apply(two.host)
        assert caught.value.step_code == "not_ours"
        await step.undo(two.host)
    assert [path.name for path in two.arrived.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("position", "script"),
    [
        (0, "alfa-measure"), (0, "alfa-pack"), (0, "alfa-unpack"), (1, "alfa-listing"), (1, "alfa-compare"),
        (1, "alfa-dropped"), (1, "alfa-drop"), (1, "alfa-pack-listed"), (1, "alfa-unpack"), (2, "alfa-digest"),
    ],
)  # fmt: skip
async def test_a_cut_connection_is_no_loss(two: Two, position: int, script: str) -> None:
    """The step fails or goes on by itself; the next attempt brings it to its end."""
    steps = two.steps()
    (two.storage / "new").write_bytes(os.urandom(3_000_000))
    await carry_out(Playbook(steps[:position]), two.host)
    if position < 2:
        (two.storage / "newer").write_bytes(os.urandom(3_000_000))
        (two.storage / "logs" / "big").unlink()
    two.site.practice.forget_commands()
    two.site.practice.fault(f"{script} /", "kill_connection", phase="during", times=1)
    for _ in range(2):
        try:
            await carry_out(Playbook(steps), two.host)
            break
        except (ConnectionLostError, CommandFailedError):
            continue
    assert [seen.fault for seen in two.site.practice.commands() if seen.fault] == ["kill_connection"]
    assert two.same()
    assert two.left() == []


@pytest.mark.parametrize(("script", "status"), [("alfa-pack", tree.UNREADABLE), ("alfa-pack-listed", tree.CHANGED)])
async def test_files_that_change_while_they_are_read_are_read_again(two: Two, script: str, status: int) -> None:
    two.site.practice.fault(f"{script} /", "fail", phase="after", exit_status=status, times=2)
    copy, send, verify = two.steps()
    await carry_out(Playbook([copy]), two.host)
    (two.storage / "new").write_text("new")
    await carry_out(Playbook([send, verify]), two.host)
    assert two.same()
    assert len([note for note in two.lines.notes if note.endswith(("sent again.", "compared again."))]) == 2


async def test_files_that_are_never_at_rest_are_an_error(two: Two) -> None:
    two.site.practice.fault("alfa-pack-listed /", "fail", phase="after", exit_status=tree.CHANGED)
    copy, send, _ = two.steps()
    await carry_out(Playbook([copy]), two.host)
    (two.storage / "new").write_text("new")
    with pytest.raises(StepFailedError) as caught:
        await send.apply(two.host)
    assert caught.value.step_code == "files_changed"
    assert not await send.is_satisfied(two.host)


async def test_a_stopped_copy_leaves_nothing_that_runs(two: Two) -> None:
    (two.storage / "new").write_bytes(os.urandom(30_000_000))
    copy = two.steps()[0]
    assert copy.stoppable
    copying = asyncio.create_task(copy.apply(two.host))
    while not any(two.arrived.iterdir()):
        await asyncio.sleep(0.01)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    await copy.undo(two.host)
    await copy.undo(two.host)
    assert two.left() == []
    before = picture(two.arrived)
    await asyncio.sleep(0.3)
    assert picture(two.arrived) == before


@pytest.mark.parametrize(("free", "fits"), [(1_100_000_500, True), (1_100_000_499, False)])
async def test_files_need_room(free: int, fits: bool) -> None:
    spec = make_spec(layout=Layout())

    def answer(command: Command) -> Result:
        if command == requirements.free_space(spec.layout.root):
            return Result(0, f"Avail\n{free}\n".encode())
        return Result(1) if command.argv[0] == "test" else Result(0, b"7 1000000000\n")

    host = FakeHost(answer)
    check = CheckFilesSpace(spec, Elsewhere("other", host), 500)
    if fits:
        assert await check.is_satisfied(host)
    else:
        with pytest.raises(StepFailedError, match="on other") as caught:
            await check.is_satisfied(host)
        assert caught.value.step_code == "disk_full"
        begun = FakeHost(lambda command: Result(0, b"7 1000000000\n"))
        assert await CheckFilesSpace(spec, Elsewhere("other", host), 500).is_satisfied(begun)
    assert host.facts["files_space"]["needed_bytes"] == 1_100_000_500


async def test_files_are_archived_and_put_back(two: Two) -> None:
    before = picture(two.storage)
    ensure, restore = EnsureFilesArchive(two.spec, "b-1", frozen=True), RestoreFilesArchive(two.spec, "b-1")
    assert await carry_out(Playbook([ensure]), two.host) == ["EnsureFilesArchive"]
    assert await carry_out(Playbook([ensure]), two.host) == []
    lying = sorted(path for path in Path(dump.folder(two.spec)).iterdir() if path.name.startswith("b-1"))
    assert [(path.name, path.stat().st_mode & 0o777) for path in lying] == [
        ("b-1.files", 0o600), ("b-1.files.json", 0o600),
    ]  # fmt: skip
    manifest = await read_files_manifest(two.host, two.spec, "b-1")
    assert manifest is not None
    assert (manifest.entries, manifest.bytes, manifest.size_bytes) == (
        len(before) - 1, 400_000, lying[0].stat().st_size,
    )  # fmt: skip
    (two.storage / "logs" / "big").write_text("spoilt")
    (two.storage / "more").write_text("more")
    assert await carry_out(Playbook([restore]), two.host) == ["RestoreFilesArchive"]
    assert picture(two.storage) == before
    (two.storage / "more").write_text("more")
    assert await carry_out(Playbook([restore]), two.host) == []
    await restore.apply(two.again().host)
    assert picture(two.storage) == before
    assert {path.name for path in Path(two.spec.directory).glob("storage*")} == {"storage"}
    remove = RemoveFilesArchive(two.spec, "b-1")
    assert await carry_out(Playbook([remove]), two.host) == ["RemoveFilesArchive"]
    assert await carry_out(Playbook([remove, ensure]), two.host) == []
    assert not [path for path in Path(dump.folder(two.spec)).iterdir() if path.name.startswith("b-1")]


async def test_a_damaged_archive_touches_nothing(two: Two) -> None:
    await carry_out(Playbook([EnsureFilesArchive(two.spec, "b-1")]), two.host)
    file = Path(tree_archive.path(two.spec, "b-1"))
    before, whole = picture(two.storage), file.read_bytes()
    restore = RestoreFilesArchive(two.spec, "b-1")
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StepFailedError) as caught:
        await restore.apply(two.host)
    assert caught.value.step_code == "archive_damaged"
    file.write_bytes(whole[:-1])
    with pytest.raises(StepFailedError) as caught:
        await restore.apply(two.again().host)
    assert caught.value.step_code == "archive_missing"
    assert picture(two.storage) == before


@pytest.mark.parametrize(("frozen", "status", "code"), [(True, 1, "files_changed"), (False, 2, "command_failed")])
async def test_an_archive_that_cannot_be_made_leaves_nothing(two: Two, frozen: bool, status: int, code: str) -> None:
    file, folder = tree_archive.path(two.spec, "b-1"), Path(two.spec.directory)
    (folder / "bin").mkdir()
    tar = folder / "bin" / "tar"
    tar.write_text(f'#!/bin/sh\n{shutil.which("tar")} "$@"\necho out of luck >&2\nexit {status}\n')
    tar.chmod(0o755)
    Path(file).parent.mkdir(exist_ok=True, parents=True)
    command = tree_archive.write_archive(tree.storage(two.spec), file, "files-b-1", frozen=frozen)
    done = run(command, path=f"{folder}/bin:{os.environ['PATH']}")
    assert done.returncode == {"files_changed": tree.CHANGED, "command_failed": tree.UNREADABLE}[code]
    assert b"out of luck" in done.stderr
    assert not list(Path(file).parent.glob("b-1*"))
    assert await read_files_manifest(two.host, two.spec, "b-1") is None


async def test_an_archive_that_was_cut_on_its_way_to_the_disk_is_noticed(two: Two) -> None:
    file, folder = tree_archive.path(two.spec, "b-1"), Path(two.spec.directory)
    (folder / "bin").mkdir()
    Path(file).parent.mkdir(exist_ok=True, parents=True)
    zstd = folder / "bin" / "zstd"
    zstd.write_text(f'#!/bin/bash\n{shutil.which("zstd")} "$@" | if [ $1 = -1 ]; then head -c -9; else cat; fi\n')
    zstd.chmod(0o755)
    command = tree_archive.write_archive(tree.storage(two.spec), file, "files-b-1", frozen=False)
    assert run(command, path=f"{folder}/bin:{os.environ['PATH']}").returncode == tree.DAMAGED
    assert not list(Path(file).parent.glob("b-1*"))


def run(command: Command, *, path: str = "") -> subprocess.CompletedProcess[bytes]:
    """A script, right here."""
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    return subprocess.run(command.argv, env=environment, capture_output=True, check=False)


# A program that kills its script before the call of that number.
DIES = """#!/bin/sh
echo x >>"$COUNT"
[ "$(wc -l <"$COUNT")" -ne "$AT" ] || { kill -9 "$PPID"; exit 1; }
exec %s "$@"
"""


@pytest.mark.parametrize("program", ["mv", "rm"])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_restore_can_be_killed_anywhere(two: Two, program: str, at: int) -> None:
    before = picture(two.storage)
    await carry_out(Playbook([EnsureFilesArchive(two.spec, "b-1")]), two.host)
    manifest = await read_files_manifest(two.host, two.spec, "b-1")
    assert manifest is not None
    (two.storage / "more").write_text("more")
    spoilt = picture(two.storage)
    folder, file = Path(two.spec.directory), tree_archive.path(two.spec, "b-1")
    (folder / "bin").mkdir()
    (folder / "bin" / program).write_text(DIES % shutil.which(program))
    (folder / "bin" / program).chmod(0o755)
    command = tree_archive.restore_archive(file, manifest, str(two.storage), "r")
    environment = {
        **os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "AT": str(at), "COUNT": str(folder / "count"),
    }  # fmt: skip
    done = subprocess.run(command.argv, env=environment, capture_output=True, check=False)
    assert (done.returncode == -9) == ((program, at) != ("mv", 3))
    if two.storage.exists():
        assert picture(two.storage) in (before, spoilt)
    else:
        damaged = tree_archive.restore_archive("/dev/null", manifest, str(two.storage), "r")
        assert run(damaged).returncode == tree.DAMAGED
        assert picture(two.storage) == spoilt
    assert run(command).returncode == 0
    assert picture(two.storage) == before
    assert {path.name for path in folder.glob("storage*")} == {"storage"}


def test_a_manifest_says_what_it_was_told() -> None:
    assert FilesManifest.parse(MANIFEST.render().decode()) == MANIFEST
    assert FilesManifest.parse_written(f"2026-01-02T03:04:05Z 3 10 20 {'0' * 64}\n") == MANIFEST
    for text in ("", "{}", "[]", "1", "x y"):
        with pytest.raises(RemoteError):
            FilesManifest.parse(text)
        with pytest.raises(RemoteError):
            FilesManifest.parse_written(text)
    with pytest.raises(ValueError, match="not a name"):
        tree_archive.path(make_spec(), "../x")
