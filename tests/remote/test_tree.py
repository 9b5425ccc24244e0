"""A client's files on their way: whatever they are called and whatever happens, they arrive as they are."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import tree
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.tree import Difference, Size

from .conftest import SUDO

pytestmark = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")

NAMES = [
    "plain", "two\nlines", "-rf", " end ", "tab\tin it", "back\\nslash", "quote'\"$(touch x)`", "Ёж 😀", "star*[a]?",
    "@x", "dot", "end", "d file",
]  # fmt: skip
BYTES = [b"\xff\xfe not text", b"\x01\x1b[31m"]


@dataclass
class Sides:
    """Two folders with files, as on two servers."""

    root: Path
    limits: tuple[str, ...] = ()
    """What starts each command."""

    def __post_init__(self) -> None:
        for side in ("a", "b"):
            (self.root / side / "storage").mkdir(parents=True)
            (self.root / side / "transfer").mkdir()
        (self.root / "bin").mkdir()
        (self.root / "bin" / "sudo").write_text(SUDO)
        (self.root / "bin" / "sudo").chmod(0o755)

    @property
    def here(self) -> Path:
        return self.root / "a" / "storage"

    @property
    def there(self) -> Path:
        return self.root / "b" / "storage"

    @property
    def ends(self) -> tuple[str, str, str, str]:
        """The folders here and there, each with its transfer's."""
        a, b = self.root / "a", self.root / "b"
        return str(a / "storage"), str(a / "transfer"), str(b / "storage"), str(b / "transfer")

    def start(self, command: Command, *, stdin: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self.limits, "sh", "-c", command.to_shell()], env=environment, stdin=stdin, stdout=pipe, stderr=pipe
        )

    def run(self, command: Command, data: bytes = b"") -> tuple[int, bytes]:
        process = self.start(command)
        output, words = process.communicate(data)
        return process.returncode, output or words

    def good(self, command: Command, data: bytes = b"") -> bytes:
        status, output = self.run(command, data)
        assert status == 0, output
        return output

    def copy(self) -> None:
        """The first pass."""
        here, work, there, work_there = self.ends
        self.good(tree.unpack(there, work_there, empty=True), self.good(tree.pack(here, work)))

    def compare(self) -> Difference:
        here, work, there, _ = self.ends
        self.good(tree.compare(here, work), self.good(tree.listing(there)))
        return tree.parse_difference(self.good(tree.summary(work)).decode())

    def listed(self, name: str) -> list[str]:
        """What `compare` has noted."""
        data = (self.root / "a" / "transfer" / name).read_bytes()
        return [os.fsdecode(path) for path in data.split(b"\0")[:-1]]

    def send(self) -> Difference:
        """The second pass."""
        here, work, there, work_there = self.ends
        found = self.compare()
        self.good(tree.drop_listed(there, work_there), self.good(tree.dropped(work)))
        self.good(tree.unpack(there, work_there, empty=False), self.good(tree.pack_listed(here, work)))
        return found

    def digests(self) -> tuple[tree.Digest, tree.Digest]:
        here, work, there, work_there = self.ends
        return (
            tree.parse_digest(self.good(tree.digest(here, work, "d")).decode()),
            tree.parse_digest(self.good(tree.digest(there, work_there, "d")).decode()),
        )

    def same(self) -> bool:
        """Whether both sides are equal, by their digests and by a look of our own."""
        one, other = self.digests()
        assert (one == other) == (picture(self.here) == picture(self.there))
        return one == other


def picture(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that counts about a tree."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(root)
    paths = [top] + [os.path.join(at, name) for at, dirs, files in os.walk(top) for name in dirs + files]
    for path in paths:
        stat = os.lstat(path)
        content = b""
        if os.path.islink(path):
            content = os.readlink(path)
        elif os.path.isfile(path):
            content = Path(os.fsdecode(path)).read_bytes()
        found[path[len(top) :]] = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns, content)
    return found


def fill(root: Path) -> None:
    """Everything that a hostile client may leave."""
    for number, name in enumerate([*map(os.fsencode, NAMES), *BYTES]):
        folder = os.fsencode(root) + b"/" + name
        os.mkdir(folder)
        for inner in [*map(os.fsencode, NAMES), *BYTES]:
            Path(os.fsdecode(folder + b"/" + inner)).write_bytes(inner * (number + 1))
        os.utime(folder, ns=(1, 1_500_000_000_123_456_789 + number))
    (root / "to root").symlink_to("/")
    (root / "up").symlink_to("..")
    (root / "gone").symlink_to("no//where\n\t//")
    (root / "self").symlink_to("self")
    os.link(root / "plain" / "plain", root / "linked")
    os.link(root / "plain" / "plain", root / "plain" / "linked\ntoo")
    os.mkfifo(root / "fifo", 0o600)
    (root / "empty").mkdir(mode=0o700)
    (root / "odd").write_text("x")
    (root / "odd").chmod(0o6751)
    (root / "closed").write_text("x")
    (root / "closed").chmod(0)
    with (root / "sparse").open("wb") as file:
        file.truncate(50 * 1024**2)
    (root / "Ёж").write_text("ёж")
    os.utime(root / "Ёж", ns=(1, 999))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "s"))


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def test_hostile_files_arrive_as_they_are(sides: Sides) -> None:
    fill(sides.here)
    sides.copy()
    (sides.here / "s").unlink()
    os.utime(sides.here, ns=(1, 5))
    found = sides.send()
    assert (found.files, found.dropped) == (0, 0)
    assert sides.same()
    assert os.path.samefile(sides.there / "linked", sides.there / "plain" / "plain")
    assert (sides.there / "sparse").stat().st_blocks < 1000
    count = len(picture(sides.here)) - 1
    size = tree.parse_size(sides.good(tree.measure(str(sides.here))).decode())
    assert size == sides.digests()[0].size
    assert size.entries == count
    assert size.bytes > 50 * 1024**2
    assert not list(sides.root.rglob("x"))


def test_sockets_are_left_out(sides: Sides) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(sides.here / "s"))
    sides.copy()
    sides.send()
    assert list(sides.there.iterdir()) == []
    assert sides.digests()[0] == sides.digests()[1]


def test_an_empty_folder_is_something(sides: Sides) -> None:
    (sides.there / "old" / "deep").mkdir(parents=True)
    os.utime(sides.here, ns=(1, 77))
    sides.copy()
    assert sides.send() == Difference(0, 0, 0, 0)
    assert sides.same()
    assert sides.digests()[0].size == Size(0, 0)


def test_only_the_difference_is_sent(sides: Sides) -> None:
    fill(sides.here)
    (sides.here / "s").unlink()
    sides.copy()
    old = (sides.here / "plain" / "-rf").stat()
    (sides.here / "plain" / "-rf").write_bytes(b"X" * old.st_size)
    os.utime(sides.here / "plain" / "-rf", ns=(old.st_atime_ns, old.st_mtime_ns))
    (sides.here / "two\nlines" / "two\nlines").unlink()
    shutil.rmtree(sides.here / "tab\tin it")
    (sides.here / "new").mkdir()
    (sides.here / "new" / "er").write_text("12345")
    (sides.here / "odd").chmod(0o600)
    (sides.here / "Ёж").rename(sides.here / "ёж")
    found = sides.send()
    assert found.dropped == 1 + 1 + len(NAMES) + len(BYTES) + 1
    assert found.files == 4  # written with the former time, new, another mode, another name
    assert set(sides.listed("send")) >= {"./plain/-rf", "./new/er", "./odd", "./ёж", ".", "./two\nlines"}
    assert sides.same()
    assert os.path.samefile(sides.there / "linked", sides.there / "plain" / "plain")
    assert sides.compare().dropped == 0


def test_a_link_becomes_a_folder_and_a_folder_a_link(sides: Sides) -> None:
    outside = sides.root / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (sides.here / "a").symlink_to(outside)
    (sides.here / "b").mkdir()
    (sides.here / "b" / "kept").write_text("mine")
    (sides.here / "c").mkdir()
    (sides.here / "f").write_text("1")
    sides.copy()
    (sides.here / "a").unlink()
    (sides.here / "a").mkdir()
    (sides.here / "a" / "new").write_text("new")
    shutil.rmtree(sides.here / "b")
    (sides.here / "b").symlink_to(outside)
    (sides.here / "c").rmdir()
    os.mkfifo(sides.here / "c")
    (sides.here / "f").unlink()
    (sides.here / "f").mkdir()
    sides.send()
    assert sides.same()
    (sides.here / "a" / "new").unlink()
    (sides.here / "a").rmdir()
    (sides.here / "a").symlink_to(outside)
    (sides.here / "b").unlink()
    (sides.here / "b").mkdir()
    (sides.here / "b" / "kept").write_text("again")
    sides.send()
    assert sides.same()
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("kept", "kept")]


def test_broken_and_new_hard_links_arrive(sides: Sides) -> None:
    for name in "abc":
        (sides.here / name).write_text(name)
    os.link(sides.here / "a", sides.here / "a2")
    sides.copy()
    (sides.here / "a2").unlink()
    (sides.here / "a2").write_text("own")
    os.link(sides.here / "b", sides.here / "b2")
    sides.send()
    assert sides.same()
    assert (sides.there / "a").read_text() == "a"
    assert os.path.samefile(sides.there / "b", sides.there / "b2")


def test_links_that_lie_on_the_target_are_not_followed(sides: Sides) -> None:
    """As an earlier stop, or somebody, may have left them."""
    outside = sides.root / "outside"
    (outside / "d").mkdir(parents=True)
    (outside / "f").write_text("kept")
    (sides.here / "d").mkdir()
    (sides.here / "d" / "f").write_text("mine")
    (sides.here / "f").write_text("mine")
    sides.copy()
    shutil.rmtree(sides.there / "d")
    (sides.there / "d").symlink_to(outside)
    (sides.there / "f").unlink()
    (sides.there / "f").symlink_to(outside / "f")
    sides.send()
    assert sides.same()
    (sides.there / "x").symlink_to(outside)
    assert sides.compare().dropped == 1
    ends = sides.ends
    sides.good(tree.drop_listed(ends[2], ends[3]), b"./x/f\0./x/d\0./../../outside/f\0/etc/x\0end\0")
    assert sorted(path.name for path in outside.iterdir()) == ["d", "f"]
    assert (outside / "f").read_text() == "kept"


def test_a_list_that_was_cut_changes_nothing(sides: Sides) -> None:
    for name in ("ab", "abc"):
        (sides.here / name).write_text(name)
    sides.copy()
    here, work, there, work_there = sides.ends
    whole = sides.good(tree.listing(there))
    sides.compare()
    before = picture(sides.root / "a" / "transfer").keys()
    for end in range(0, len(whole), 7):
        assert sides.run(tree.compare(here, work), whole[:end])[0] == tree.DAMAGED
    (sides.here / "ab").unlink()
    (sides.here / "abc").unlink()
    assert sides.compare().dropped == 2
    dropping = sides.good(tree.dropped(work))
    for end in range(len(dropping) - 1):
        assert sides.run(tree.drop_listed(there, work_there), dropping[:end])[0] == tree.DAMAGED
    assert len(list(sides.there.iterdir())) == 2
    assert sides.run(tree.note_differing(work), b"x\0")[0] == tree.DAMAGED
    assert {b"/send", b"/drop", b"/summary"} <= before


def test_a_stream_that_was_cut_is_noticed(sides: Sides) -> None:
    (sides.here / "f").write_bytes(os.urandom(100_000))
    here, work, there, work_there = sides.ends
    whole = sides.good(tree.pack(here, work))
    for end in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        assert sides.run(tree.unpack(there, work_there, empty=True), whole[:end])[0] != 0
    sides.good(tree.unpack(there, work_there, empty=True), whole)
    assert sides.same()


def test_what_cannot_be_read_is_an_error(sides: Sides) -> None:
    here, work, there, work_there = sides.ends
    (sides.here / "f").write_text("x")
    fake = sides.root / "bin" / "tar"
    for status, first, second in ((1, 0, tree.CHANGED), (2, tree.UNREADABLE, tree.UNREADABLE)):
        fake.unlink(missing_ok=True)
        sides.compare()
        fake.write_text(f"#!/bin/sh\necho broken >&2\nexit {status}\n")
        fake.chmod(0o755)
        assert sides.run(tree.pack(here, work))[0] == first
        assert sides.run(tree.pack_listed(here, work))[0] == second
        assert sides.run(tree.unpack(there, work_there, empty=False), b"")[0] != 0


def test_a_folder_swapped_for_a_link_is_noticed(sides: Sides) -> None:
    """tar follows it, so that what it read must not be believed."""
    (sides.here / "d").mkdir()
    (sides.here / "d" / "f").write_text("x")
    (sides.root / "outside").mkdir()
    (sides.root / "outside" / "f").write_text("secret")
    here, work, *_ = sides.ends
    sides.compare()
    (sides.here / "d").rename(sides.here / "e")
    (sides.here / "d").symlink_to(sides.root / "outside")
    assert sides.run(tree.pack_listed(here, work))[0] == tree.CHANGED
    (sides.here / "d").unlink()
    (sides.here / "e").rename(sides.here / "d")
    assert sides.run(tree.pack_listed(here, work))[0] == tree.CHANGED  # the kernel's own time tells
    sides.compare()
    sides.good(tree.pack_listed(here, work))


def test_digests_see_what_times_hide(sides: Sides) -> None:
    fill(sides.here)
    (sides.here / "s").unlink()
    sides.copy()
    sides.send()
    before = (sides.there / "odd").stat()
    (sides.there / "odd").write_text("y")
    os.utime(sides.there / "odd", ns=(1, before.st_mtime_ns))
    (sides.there / "two\nlines" / "two\nlines").chmod(0o600)
    one, other = sides.digests()
    assert one != other
    _, work, _, work_there = sides.ends
    sides.good(tree.note_differing(work), sides.good(tree.digested(work_there)))
    assert sides.good(tree.differing(work)) == b"./odd\0./two\nlines/two\nlines\0"


def test_many_files_need_little_memory(sides: Sides) -> None:
    for number in range(20_000):
        folder = sides.here / f"{number % 200:03}"
        folder.mkdir(exist_ok=True)
        (folder / f"{'n' * 60}-{number}").write_bytes(b"%d" % number)
    began = time.monotonic()
    sides.limits = ("prlimit", f"--as={300 * 1024**2}")
    sides.copy()
    for number in range(0, 20_000, 200):
        (sides.here / "000" / f"{'n' * 60}-{number}").write_text("new")
    found = sides.send()
    assert found.files == 100
    assert sides.same()
    assert sides.digests()[0].size.entries == 20_200
    assert time.monotonic() - began < 120


@pytest.mark.parametrize("text", ["", "1", "1 x", "-1 2", "1 2 3", "error"])
def test_answers_that_are_none_are_errors(text: str) -> None:
    for parse in (tree.parse_size, tree.parse_difference, tree.parse_digest):
        with pytest.raises(RemoteError):
            parse(text)
