"""A client's files as an archive on their own server, and back."""

from __future__ import annotations

import builtins
import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import dump, tree
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec

# As with a dump: the archive bears its name when it is on the disk and was read back whole.
ARCHIVE: Final = r"""
path=$1 file=$2 read=$3
trap 'rm -f -- "$file.part" "$file.counts.part"' EXIT
trap 'exit 143' TERM
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
"$read" --directory="$path" . | squeeze >"$file.part"
sync -- "$file.part"
found=$(zstd -d -c -q <"$file.part" | tar --list --verbose --numeric-owner --quoting-style=escape --file=- |
    awk '{ n++ } /^-/ { b += $3 } END { printf "%d %.0f", n - 1, b }') || exit 65
there=$(cd -- "$path"; find . -xdev -ignore_readdir_race -mindepth 1 ! -type s -printf '\0' | count)
[ "$read" = live ] || [ "${found% *}" -eq "$there" ] || { echo "Entries are missing." >&2; exit 65; }
size=$(stat --format=%s -- "$file.part")
sum=$(sha256sum <"$file.part")
echo "$began $found $size ${sum%% *}" >"$file.counts.part"
mv -f -- "$file.part" "$file"
mv -f -- "$file.counts.part" "$file.counts"
sync -- "$(dirname -- "$file")"
"""

# Between the two renames nothing bears the name; then `.old` is whole, and the next run begins by giving it back.
RESTORE: Final = r"""
file=$1 sum=$2 entries=$3 path=$4
away() { rm --recursive --force --one-file-system -- "$1"; }
[ -e "$path" ] || [ ! -d "$path.old" ] || mv -T -- "$path.old" "$path"
[ "$(sha256sum <"$file")" = "$sum  -" ] || { echo "$file is damaged; nothing was touched." >&2; exit 65; }
away "$path.new"
mkdir -- "$path.new"
zstd -d -c -q <"$file" | unpack "$path.new"
found=$(cd -- "$path.new"; find . -xdev -mindepth 1 -printf '\0' | count)
[ "$found" -eq "$entries" ] || { echo "$found entries were extracted instead of $entries." >&2; exit 65; }
sync --file-system -- "$path.new"
away "$path.old"
[ ! -e "$path" ] || mv -T -- "$path" "$path.old"
mv -T -- "$path.new" "$path"
sync -- "$(dirname -- "$path")"
away "$path.old"
"""


@dataclass(frozen=True, slots=True)
class FilesManifest:
    """What an archive of files holds.

    Args:
        bytes: of the regular files; a file with several names counts once.
        size_bytes: of the archive itself.
        created_at: RFC 3339, by the server's clock.
    """

    entries: int
    bytes: int
    size_bytes: int
    sha256: str
    created_at: str

    def render(self) -> builtins.bytes:
        """As it lies beside the archive."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, text: str) -> FilesManifest:
        """What `render` wrote.

        Raises:
            RemoteError: it is something else.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            return cls(**raw)
        except (ValueError, TypeError) as error:
            raise RemoteError("What an archive of files holds cannot be read.") from error

    @classmethod
    def parse_written(cls, text: str) -> FilesManifest:
        """What `write_archive` left.

        Raises:
            RemoteError: it is something else.
        """
        try:
            created_at, entries, length, size, sha256 = text.split()
            return cls(int(entries), int(length), int(size), sha256, created_at)
        except ValueError as error:
            raise RemoteError("What an archive of files holds cannot be read.") from error


def path(spec: ClientSpec, name: str) -> str:
    """Where an archive of a client's files lies.

    Raises:
        ValueError: the name is not one for a file.
    """
    return f"{dump.path(spec, name)}.files"


def write_archive(folder: str, file: str, name: str, *, frozen: bool) -> Command:
    """All that is below a folder is in one file, which was read back whole; `tree.DAMAGED` where it was not.

    Args:
        name: of the detached command.
        frozen: whether nothing writes meanwhile, so that `tree.CHANGED` is an error.
    """
    argv = ("bash", "-c", tree.COMMON + ARCHIVE, "alfa-archive", folder, file, "pack" if frozen else "live")
    return Command(argv, sudo=True, timeout_s=tree.DEADLINE_S, detached=name)


def restore_archive(file: str, manifest: FilesManifest, folder: str, name: str) -> Command:
    """A folder holds what the archive does, and nothing else; `tree.DAMAGED` where the archive is not what it was.

    No container may run on the folder: it would keep the former one.

    Args:
        name: of the detached command.
    """
    argv = (
        "bash",
        "-c",
        tree.COMMON + RESTORE,
        "alfa-restore-files",
        file,
        manifest.sha256,
        str(manifest.entries),
        folder,
    )
    return Command(argv, sudo=True, timeout_s=tree.DEADLINE_S, detached=name)


def manifest_path(spec: ClientSpec, name: str) -> str:
    """Where an archive's manifest lies: written last, it says that the archive is good."""
    return f"{path(spec, name)}.json"


def counts_path(spec: ClientSpec, name: str) -> str:
    """Where `write_archive` leaves what the manifest is made of."""
    return f"{path(spec, name)}.counts"


def file_size(spec: ClientSpec, name: str) -> Command:
    """Print how long an archive is; fails where it is not there."""
    return Command(("stat", "--format=%s", "--", path(spec, name)), sudo=True, log=False, timeout_s=30)


def remove(spec: ClientSpec, name: str) -> Command:
    """Nothing of an archive is left."""
    return Command(("rm", "--force", "--", *_files(spec, name)), sudo=True, timeout_s=300)


def none_left(spec: ClientSpec, name: str) -> Command:
    """Exit status 0 where nothing of an archive is there."""
    argv = ("sh", "-c", dump.NONE_LEFT, "alfa-none-left", *_files(spec, name))
    return Command(argv, sudo=True, log=False, timeout_s=30)


def _files(spec: ClientSpec, name: str) -> list[str]:
    """All that may be there of an archive, the manifest first: without it the rest counts for nothing."""
    return [path(spec, name) + suffix for suffix in (".json", ".counts", ".counts.part", ".part", "")]
