"""A client's files on their way to another server: read, sent, compared with what is there already.

Names may hold any byte but NUL, so lists are NUL-separated. Sockets, extended attributes and access lists are left out;
symbolic links are never followed. What a transfer needs beside the files lies in a folder of its own on both servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec

DEADLINE_S: Final = 6 * 3600

DAMAGED: Final = 65
"""Exit status: a list or an archive is not whole; nothing was touched."""
CHANGED: Final = 66
"""Exit status: something wrote to the files while they were read."""
UNREADABLE: Final = 67
"""Exit status: not all of the files could be read."""
BUSY: Final = 75
"""Exit status: an earlier script of the transfer does not end."""

# A record is `TYPE MODE UID GID SIZE MTIME`, a TAB, the path, `//`, a link's target: no path holds `//`.
# The last record of a list that is sent is `end`: a cut connection looks like the end of the list.
# `alone` ends what a dead worker may have left behind: its process group stands in the lock that it holds.
COMMON: Final = r"""
set -euo pipefail
export LC_ALL=C
umask 077
seen() {
    find . -xdev "${@:2}" \( -type f -printf "$1%y %m %U %G %s %T@\t%p//\0" \
        -o ! -type s -printf "$1%y %m %U %G - %T@\t%p//%l\0" \)
}
tidy() { sort --zero-terminated --buffer-size=32M --temporary-directory=. "$@"; }
paths() { sed -z 's,^[^\t]*\t,,; s,//.*,,'; }
count() { tr -cd '\0' | wc -c; }
sizes() { cut -z -f 1 | tr '\0' '\n' | awk '$1 == "f" { n++; b += $5 } END { printf "%d %.0f\n", n, b }'; }
whole() { [ "$(tail -z -n 1 "$1" | tr '\0' '\n')" = end ] || { echo "The list is not whole." >&2; exit 65; }; }
alone() {
    exec 9>>lock
    flock -n 9 || kill -- "-$(cat lock)" 2>/dev/null || :
    flock -w 60 9 || { echo "An earlier script does not end." >&2; exit 75; }
    cut -d ' ' -f 5 "/proc/$$/stat" >lock
}
pack() {
    local code=0
    tar --create --file=- --format=posix --pax-option=delete=atime,delete=ctime --numeric-owner --sparse \
        --one-file-system --warning=no-timestamp "$@" || code=$?
    case $code in 0) ;; 1) return 66 ;; *) return 67 ;; esac
}
unpack() {
    local code=0
    tar --extract --file=- --numeric-owner --same-permissions --delay-directory-restore --warning=no-timestamp \
        --directory="$1" || code=$?
    [ "$code" -ne 0 ] || cat >/dev/null
    return "$code"
}
live() { pack "$@" || [ $? -eq 66 ] || return 67; }
squeeze() { zstd -1 -T0 -q -c; }
"""

SETTLE: Final = r"""
[ -d "$1" ] || exit 0
cd -- "$1"
alone
"""

MEASURE: Final = r"""
cd -- "$1"
find . -xdev -ignore_readdir_race -mindepth 1 ! -type s -printf '%y %s\n' |
    awk '{ n++ } $1 == "f" { b += $2 } END { printf "%d %.0f\n", n, b }'
"""

# What was seen before the first byte is read tells later what has been written since: by the inode and its ctime, which
# only the kernel sets. Two changes within one tick of its clock look like one, so the reading waits for the next.
PACK: Final = r"""
path=$1 work=$2
cd -- "$work"
alone
(cd -- "$path"; seen '%i %C@ ' -ignore_readdir_race || [ $? -eq 1 ]) >first.raw
tidy first.raw >first.part
rm -- first.raw
mv -f -- first.part first
sleep 0.05
cd -- "$path"
live . | squeeze
"""

RECEIVE: Final = r"""
path=$1 work=$2
cd -- "$work"
alone
cd -- "$path"
[ "$3" = keep ] || find . -xdev -mindepth 1 -delete
zstd -d -c -q | unpack .
"""

LISTING: Final = r"""
cd -- "$1"
seen ''
printf 'end\0'
"""

# Folders are in the list wherever an entry of theirs comes or goes: that changes their time on the other server.
COMPARE: Final = r"""
path=$1 work=$2
cd -- "$work"
alone
cat >there.raw
whole there.raw
head -z -n -1 there.raw | tidy >there
(cd -- "$path"; seen '%i %C@ ') | tidy >now
[ -e first ] || : >first
cut -z -d ' ' -f 3- now | tidy >here
comm -z -23 here there >differing
comm -z -23 now first | cut -z -d ' ' -f 3- >changed
tidy -u differing changed >sending
sed -z 's,^\(.\)[^\t]*\t,\1 ,; s,//.*,,' here | tidy >here.kinds
sed -z 's,^\(.\)[^\t]*\t,\1 ,; s,//.*,,' there | tidy >there.kinds
comm -z -13 here.kinds there.kinds | cut -z -c 3- | tidy >drop
sed -z -n 's,^d ,,p' here.kinds >here.folders
{ paths <sending; cat drop; } | sed -z 's,/[^/]*$,,' | tidy -u | comm -z -12 - here.folders >parents
{ paths <sending; cat parents; } | tidy -u >send
sed -z -n '/^[0-9]* [0-9.]* d /p' now >folders
echo "$(sizes <sending) $(count <drop) $(count <send)" >summary
rm -f -- there.raw there now here differing changed sending parents here.kinds there.kinds here.folders
"""

# tar follows a link that takes a folder's place on the way to a listed file; no folder may have changed meanwhile.
PACK_LISTED: Final = r"""
path=$1 work=$2
cd -- "$work"
alone
(cd -- "$path"; pack --no-recursion --null --no-unquote --files-from="$OLDPWD/send") | squeeze
(cd -- "$path"; seen '%i %C@ ' -type d) | tidy >folders.now
cmp --quiet -- folders folders.now || { echo "Something wrote to the files meanwhile." >&2; exit 66; }
"""

DROPPED: Final = r"""
cat -- "$1/drop"
printf 'end\0'
"""

# Only what is found without following a link is removed, the deepest first.
DROP: Final = r"""
path=$1 work=$2
cd -- "$work"
alone
cat >drop.raw
whole drop.raw
head -z -n -1 drop.raw | tidy >drop.asked
(cd -- "$path"; find . -xdev -mindepth 1 -print0) | tidy >drop.there
comm -z -12 drop.asked drop.there | tidy -r >drop
cd -- "$path"
xargs -0 -r rm -d -f -- <"$OLDPWD/drop"
"""

DIGEST: Final = r"""
path=$1 work=$2
cd -- "$work"
(cd -- "$path"; seen '') >digest.raw
tally=$(sizes <digest.raw)
entries=$(count <digest.raw)
(cd -- "$path"; find . -xdev -type f -print0 | xargs -0 -r sha256sum -z --) |
    sed -z 's,^\(.\{64\}\)  \(.*\)$,\1\t\2//,' >>digest.raw
tidy digest.raw >digest
rm -- digest.raw
sum=$(sha256sum <digest)
echo "$((entries - 1)) ${tally#* } ${sum%% *}"
"""

DIGESTED: Final = r"""
cat -- "$1/digest"
printf 'end\0'
"""

DIFFER: Final = r"""
cd -- "$1"
cat >theirs.raw
whole theirs.raw
head -z -n -1 theirs.raw >theirs
comm -z -3 digest theirs | sed -z 's,^\t,,' | paths | tidy -u >differing.all
head -z -n 20 differing.all >differing
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is below a folder.

    Args:
        entries: of every kind but sockets.
        bytes: of the regular files, by their length; each name of a file counts.
    """

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What the next pass sends: regular files and their bytes, entries to drop, and entries of every kind to send."""

    files: int
    bytes: int
    dropped: int
    entries: int


@dataclass(frozen=True, slots=True)
class Digest:
    """Equal trees have equal ones on any server."""

    size: Size
    sha256: str


def storage(spec: ClientSpec) -> str:
    """Where a client's files lie."""
    return f"{spec.directory}/storage"


def work(spec: ClientSpec) -> str:
    """Where a transfer's lists lie; out of the client's own reach."""
    return f"{spec.directory}/transfer"


def _script(script: str, *arguments: str, name: str, timeout_s: float = DEADLINE_S) -> Command:
    return Command(("bash", "-c", COMMON + script, name, *arguments), sudo=True, timeout_s=timeout_s, log=False)


def measure(path: str) -> Command:
    """Print how many entries are below a folder, and the bytes of the regular files."""
    return _script(MEASURE, path, name="alfa-measure", timeout_s=600)


def parse_size(text: str) -> Size:
    """The answer of `measure`.

    Raises:
        RemoteError: it is something else.
    """
    entries, length = _numbers(text, 2)
    return Size(entries, length)


def pack(path: str, work: str) -> Command:
    """Print all that is below a folder while it is written to, and note what it was; `UNREADABLE` where that failed."""
    return _script(PACK, path, work, name="alfa-pack")


def unpack(path: str, work: str, *, empty: bool) -> Command:
    """What was packed is in a folder.

    Args:
        empty: whether all that was there goes first.
    """
    return _script(RECEIVE, path, work, "empty" if empty else "keep", name="alfa-unpack")


def listing(path: str) -> Command:
    """Print what is below a folder, for `compare`."""
    return _script(LISTING, path, name="alfa-listing")


def compare(path: str, work: str) -> Command:
    """What must be sent and dropped, for the other server to have the same, is noted; it reads that one's listing.

    What has been written to since `pack` began is sent, whatever it looks like.
    """
    return _script(COMPARE, path, work, name="alfa-compare")


def summary(work: str) -> Command:
    """Print what `compare` noted."""
    return Command(("cat", "--", f"{work}/summary"), sudo=True, log=False)


def parse_difference(text: str) -> Difference:
    """The answer of `summary`.

    Raises:
        RemoteError: it is something else.
    """
    return Difference(*_numbers(text, 4))


def pack_listed(path: str, work: str) -> Command:
    """Print what `compare` found to be sent; exit status `CHANGED` where something was written meanwhile."""
    return _script(PACK_LISTED, path, work, name="alfa-pack-listed")


def dropped(work: str) -> Command:
    """Print what `compare` found to be dropped, for `drop_listed`."""
    return _script(DROPPED, work, name="alfa-dropped")


def drop_listed(path: str, work: str) -> Command:
    """What the list that it reads names is not below the folder any more."""
    return _script(DROP, path, work, name="alfa-drop")


def digest(path: str, work: str, name: str) -> Command:
    """Print a line that is the same for equal trees: entries, bytes, and a SHA-256 over all that `listing` tells and
    over every file's content.

    Args:
        name: of the detached command.
    """
    return replace(_script(DIGEST, path, work, name="alfa-digest"), detached=name)


def parse_digest(text: str) -> Digest:
    """The last line that `digest` printed.

    Raises:
        RemoteError: it is something else.
    """
    found = re.search(r"^(\d+) (\d+) ([0-9a-f]{64})\n?\Z", text, re.MULTILINE)
    if found is None:
        raise RemoteError("The server does not tell what the files are.")
    return Digest(Size(int(found[1]), int(found[2])), found[3])


def digested(work: str) -> Command:
    """Print what `digest` looked at, for `note_differing`."""
    return _script(DIGESTED, work, name="alfa-digested")


def note_differing(work: str) -> Command:
    """Some paths that are not the same here and in the list that it reads are noted."""
    return _script(DIFFER, work, name="alfa-differ")


def differing(work: str) -> Command:
    """Print what `note_differing` noted, NUL after each."""
    return Command(("cat", "--", f"{work}/differing"), sudo=True, log=False)


def settle(work: str) -> Command:
    """No script that a dead worker left behind writes any more."""
    return _script(SETTLE, work, name="alfa-settle", timeout_s=90)


def remove(path: str) -> Command:
    """Nothing of a folder is left."""
    argv = ("rm", "--recursive", "--force", "--one-file-system", "--", path)
    return Command(argv, sudo=True, timeout_s=600)


def _numbers(text: str, count: int) -> list[int]:
    words = text.split()
    if len(words) != count or not all(word.isdecimal() for word in words):
        raise RemoteError("The server does not tell how much the files are.")
    return list(map(int, words))
