"""A client's files go from one real host to another, and into an archive and back."""

from __future__ import annotations

import ipaddress
import os
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from alfa_cloud.playbooks.playbook import Elsewhere, Playbook, Step
from alfa_cloud.playbooks.steps.client import EnsureFolder
from alfa_cloud.playbooks.steps.tree import CheckFilesSpace, CopyFiles, SendDifference, VerifyFiles
from alfa_cloud.playbooks.steps.tree_archive import EnsureFilesArchive, RemoveFilesArchive, RestoreFilesArchive
from alfa_cloud.remote import dump, keys, tree
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import Address, ClientSpec, Layout
from tests.lab.hosts import LabHost
from tests.playbooks.conftest import Lines, carry_out
from tests.playbooks.specs import make_spec

FILES, MEGABYTES = (20_000, 1000) if os.environ.get("ALFA_LAB") == "full" else (2000, 50)
FREEZE_S = 15
"""What a freeze may take for the files."""

FILL = r"""
cd "$1"
for number in $(seq 100); do
    mkdir "d$number"
    head -c $(($2 * 10000)) /dev/urandom | split -a 4 -b $(($2 * 1000000 / $3)) - "d$number/f"
done
chown -R 33:1000 d1; chmod 4711 d2/faaaa; ln -s / root; ln -s ../../.. up; ln d1/faaaa hard; mkfifo pipe
mknod whiteout c 0 0; truncate -s 50M sparse
touch $'new\nline' $'\xff\x1b' -- '-rf'; touch -h -d 1999-01-02 root up
"""
WORK = r"""
cd "$1"
for number in $(seq 50); do printf x >>"d$number/faaaa"; done
rm -r d100; mv d99 moved; rm root; mkdir root; echo x >root/etc; ln d5/faaab again
touch -r d7/faaab /tmp/alfa-time; printf y | dd of=d7/faaab conv=notrunc status=none; touch -r /tmp/alfa-time d7/faaab
rm /tmp/alfa-time
"""
LOOK = r"""
cd "$1"
find . ! -type d -printf '%y %m %U %G %s %T@ %p %l\0' -o -printf '%y %m %U %G %T@ %p\0' | sort -z | sha256sum
find . -type f -print0 | sort -z | xargs -0 sha256sum -z | sha256sum
"""


@dataclass
class Ends:
    """The client's folders on two hosts, and new connections to both."""

    spec: ClientSpec
    labs: tuple[LabHost, LabHost]
    pool: SshPool
    lines: Lines

    def session(self, end: int, operation: str) -> SshHost:
        lab = self.labs[end]
        key = " ".join(lab.exec(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.decode().split()[:2])
        return SshHost(
            self.pool, Address(end + 1, lab.address, 22, "www-data", key), Layout(), sink=self.lines,
            operation_dir=Layout().operation_dir(operation), fence=1, masker=Masker(), guard=lambda: None,
        )  # fmt: skip

    def operation(self) -> tuple[SshHost, Elsewhere]:
        name = str(uuid.uuid4())
        return self.session(0, name), Elsewhere("the other", self.session(1, name))

    def exec(self, end: int, script: str, *arguments: str) -> str:
        done = self.labs[end].exec(["bash", "-c", script, "test", tree.storage(self.spec), *arguments])
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def same(self) -> bool:
        return self.exec(0, LOOK) == self.exec(1, LOOK)


@pytest.fixture
async def ends(hosts: dict[str, LabHost]) -> AsyncIterator[Ends]:
    """A client with files on one host, and its empty folder on the other."""
    private, public = keys.generate_key()
    one, other = hosts.values()
    one.authorize(public)
    pool = SshPool(private, allowed_networks=[ipaddress.ip_network("172.16.0.0/12")])
    found = Ends(make_spec(id=9011, name="files"), (one, other), pool, Lines())
    for end in (0, 1):
        await carry_out(Playbook([EnsureFolder(found.spec)]), found.session(end, "files"))
    found.exec(0, FILL, str(MEGABYTES), str(FILES))
    yield found
    for end in (0, 1):
        found.labs[end].exec(["rm", "-rf", found.spec.directory, dump.folder(found.spec)])
    await pool.close()


@pytest.mark.full
async def test_files_move_while_the_client_works(ends: Ends) -> None:
    host, target = ends.operation()
    pair = ends.spec, target, ends.spec
    first: list[Step] = [CheckFilesSpace(ends.spec, target, 0), CopyFiles(*pair, "move")]
    assert await carry_out(Playbook(first), host) == ["CopyFiles"]
    ends.exec(0, WORK)
    began = time.monotonic()
    frozen: list[Step] = [SendDifference(*pair, "move"), VerifyFiles(*pair)]
    await carry_out(Playbook([*first, *frozen]), host)
    spent_s = time.monotonic() - began
    print(f"\n{FILES} files, {MEGABYTES} MB: {spent_s:.1f} s frozen; {ends.lines.notes[-2]}")
    assert spent_s < FREEZE_S
    assert ends.same()
    assert ends.exec(1, 'ls "$1/.."') == "storage\n"
    assert ends.exec(0, 'ls "$1/.."') == "storage\n"


@pytest.mark.full
async def test_files_are_archived_and_put_back(ends: Ends) -> None:
    host, _ = ends.operation()
    before = ends.exec(0, LOOK)
    await carry_out(Playbook([EnsureFilesArchive(ends.spec, "back-up", frozen=True)]), host)
    ends.exec(0, WORK)
    await carry_out(Playbook([RestoreFilesArchive(ends.spec, "back-up")]), host)
    assert ends.exec(0, LOOK) == before
    await carry_out(Playbook([RemoveFilesArchive(ends.spec, "back-up")]), host)
