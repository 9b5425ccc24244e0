"""A private git repository on a lab host: a user `git` with git-shell, reached by ssh with a deploy key."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from tests.lab.hosts import LabHost

TREE = Path(__file__).with_name("source")

SETUP = """
set -eu
id git >/dev/null 2>&1 || useradd --system --create-home --shell /usr/bin/git-shell git
install -d -m 700 -o git -g git ~git/.ssh
cat >~git/.ssh/authorized_keys
rm -rf /srv/git
install -d -o git -g git /srv/git
cd /srv/git
runuser -u git -- git init --quiet --bare app.git
runuser -u git -- git clone --quiet app.git tree
"""
# The files come as a tar archive; prints the new commit.
COMMIT = """
set -eu
branch=$1 tag=$2
cd /srv/git/tree
exec 3>&1 >&2
git checkout --quiet "$branch" 2>/dev/null || git checkout --quiet -b "$branch"
tar --extract --file=-
date +%s%N >changes.txt
git add --all
git -c user.name=lab -c user.email=lab@example.org commit --quiet --message="Change $branch"
[ -z "$tag" ] || git tag "$tag"
git push --quiet --tags origin "$branch"
git rev-parse HEAD >&3
"""


@dataclass(frozen=True, slots=True)
class LabRepository:
    """A repository on a host, with an empty history at first.

    Args:
        key_file: the deploy key.
    """

    host: LabHost
    key_file: Path

    @property
    def settings(self) -> dict[str, str]:
        """The service's settings for it."""
        return {
            "ALFA_SOURCE__URL": f"ssh://git@{self.host.address}/srv/git/app.git",
            "ALFA_SOURCE__KEY_FILE": str(self.key_file),
            "ALFA_SOURCE__HOST_KEY": self._host_key,
            "ALFA_SOURCE__DEV_FRONTEND": '["sh", "frontend/build.sh"]',
            "ALFA_SOURCE__MASTER_FRONTEND": '["sh", "frontend/build.sh"]',
        }

    @property
    def _host_key(self) -> str:
        text = self.host.exec(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.decode()
        return " ".join(text.split()[:2])

    def commit(self, branch: str, tag: str = "", **files: str) -> str:
        """A new commit on a branch: the lab's own tree with these files instead; its hash."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(TREE, arcname=".")
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
        argv = ["runuser", "-u", "git", "--", "bash", "-c", COMMIT, "commit", branch, tag]
        done = self.host.exec(argv, stdin=archive.getvalue())
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()


def make_repository(host: LabHost, folder: Path) -> LabRepository:
    """An empty repository on a host, and a deploy key for it in a folder."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="deploy")
    key_file = folder / "deploy-key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.export_private_key("openssh"))
    done = host.exec(["bash", "-c", SETUP], stdin=key.export_public_key("openssh"))
    assert done.returncode == 0, done.stderr
    return LabRepository(host, key_file)
