"""Files and folders on a server: written aside and renamed, removed only where they must be."""

from __future__ import annotations

import hashlib
from typing import Final

from alfa_cloud.errors import CommandFailedError
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host

# The temporary file lies in the same folder, so that the rename is atomic; the last version is kept as `.previous`.
# A cut connection looks like the end of the content, so its size is told. What a killed write left aside goes with the
# next one: no other file's name ends so.
WRITE: Final = """
set -eu
path=$1 mode=$2 owner=$3 size=$5
umask 077
rm -f -- "$path".??????'~'
new=$(mktemp -- "$path.XXXXXX~")
trap 'rm -f -- "$new"' EXIT
cat >"$new"
[ "$(wc -c <"$new")" -eq "$size" ] || { echo "$path: the content did not arrive whole" >&2; exit 74; }
chmod -- "$mode" "$new"
[ -z "$owner" ] || chown -- "$owner" "$new"
sync -- "$new"
if [ -f "$path" ] && [ "$4" = keep ]; then ln -f -- "$path" "$path.previous"; fi
mv -f -- "$new" "$path"
trap - EXIT
"""

# A folder is removed only where it really lies under its root, is no link, and bears the mark of its owner.
REMOVE: Final = """
set -eu
root=$(realpath -e -- "$1") path=$2 mark=$3 uid=$4
[ -e "$path" ] || [ -L "$path" ] || exit 0
[ ! -L "$path" ] || { echo "$path is a link; it is left alone" >&2; exit 3; }
real=$(realpath -e -- "$path")
[ "$(dirname -- "$real")" = "$root" ] || { echo "$path is not a folder of $root; it is left alone" >&2; exit 3; }
if [ -e "$real/$mark" ]; then
  [ "$(cat -- "$real/$mark")" = "$uid" ] || { echo "$path belongs to another client; it is left alone" >&2; exit 3; }
  keep=$real/$mark
  find "$real" -xdev -mindepth 1 ! -path "$keep" -delete
  rm -f -- "$keep"
elif [ -n "$(ls -A -- "$real")" ]; then
  echo "$path bears no mark of this service; it is left alone" >&2; exit 3
fi
rmdir -- "$real"
"""

MISSING: Final = 44
"""The exit status of `read_file` where there is nothing: one that no program between us and the file ends with."""
READ: Final = f"""
cat -- "$1" && exit
[ -e "$1" ] || exit {MISSING}
exit 1
"""

MARK: Final = ".alfa-client"
"""The file in a client's folder that holds the client's uid."""


def ensure_folder(path: str, *, mode: str = "0750", owner: str = "") -> Command:
    """The folder is there, with this mode and owner (`user:group`)."""
    owners: tuple[str, ...] = ()
    if owner:
        user, _, group = owner.partition(":")
        owners = (f"--owner={user}", f"--group={group}")
    return Command(("install", "--directory", f"--mode={mode}", *owners, "--", path), sudo=True)


def write_file(path: str, content: bytes, *, mode: str = "0644", owner: str = "", keep: bool = False) -> Command:
    """The file has this content, or its former one: never half of it."""
    argv = ("sh", "-c", WRITE, "alfa-write", path, mode, owner, "keep" if keep else "", str(len(content)))
    return Command(argv, stdin=content, sudo=True, log=False)


def digest_file(path: str) -> Command:
    """Print the SHA-256 of a file; exit status 1 where it is not there."""
    return Command(("sha256sum", "--", path), sudo=True, log=False, timeout_s=30)


def read_file(path: str) -> Command:
    """Print a file; exit status `MISSING` where it is not there."""
    return Command(("sh", "-c", READ, "alfa-read", path), sudo=True, log=False, timeout_s=30)


def remove_file(path: str) -> Command:
    """The file and its former version are gone."""
    return Command(("rm", "--force", "--", path, f"{path}.previous"), sudo=True)


def remove_client_folder(root: str, path: str, uid: str) -> Command:
    """A client's folder is gone; exit status 3 and nothing touched where it is not this client's."""
    return Command(("sh", "-c", REMOVE, "alfa-remove", root, path, MARK, uid), sudo=True, timeout_s=600)


def test_path(path: str) -> Command:
    """Exit status 0 where something is at the path."""
    return Command(("test", "-e", path), sudo=True, log=False, timeout_s=30)


async def holds(host: Host, path: str, content: bytes) -> bool:
    """Whether a file has exactly this content."""
    result = await host.run(digest_file(path), check=False)
    return result.ok and result.text.split(maxsplit=1)[0].lstrip("\\") == hashlib.sha256(content).hexdigest()


async def read(host: Host, path: str) -> str | None:
    """A file's text, or None where it is not there.

    Raises:
        CommandFailedError: it is there and cannot be read.
    """
    result = await host.run(read_file(path), check=False)
    if result.ok:
        return result.text
    if result.exit_status == MISSING:
        return None
    raise CommandFailedError(f"{path} cannot be read.", exit_status=result.exit_status)
