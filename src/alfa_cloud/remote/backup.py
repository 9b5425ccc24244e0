"""A back-up: a dump and an archive of the files, side by side, and the one file that they are downloaded as."""

from __future__ import annotations

from typing import Final

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import dump
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec

DEADLINE_S: Final = 6 * 3600
DAMAGED: Final = 65
"""Exit status: it is not the back-up that it should be; nothing was changed."""

# The same files give the same stream, byte for byte.
PACK: Final = """
pack() {
    LC_ALL=C tar --create --file=- --format=gnu --sort=name --mtime=@0 --owner=root:0 --group=root:0 --mode=0600 \\
        --directory="$1" -- "$2" "$2.json" "$2.files" "$2.files.json"
}
"""

SEAL: Final = (
    PACK
    + """
set -euo pipefail
trap 'rm -f -- "$3" "$3.size"' EXIT
trap 'exit 143' TERM
{ sum=$(pack "$1" "$2" | tee /dev/fd/3 | sha256sum); echo "${sum%% *}" >&4; } 3>&1 4>"$3" | wc -c >"$3.size"
cat -- "$3.size" "$3"
"""
)

SEND: Final = PACK + 'set -eu\npack "$1" "$2"\n'

# What arrives is unpacked aside, and takes its name only where it is what was announced.
RECEIVE: Final = """
set -euo pipefail
umask 077
folder=$1 name=$2 sum=$3 part=$1/$2.part
rm -rf -- "$part"; mkdir -p -- "$part"
trap 'rm -rf -- "$part"' EXIT
mkfifo -- "$part/.fifo"
sha256sum <"$part/.fifo" >"$part/.sum" &
tee -- "$part/.fifo" | tar --extract --file=- --no-same-owner --directory="$part" \\
    -- "$name" "$name.json" "$name.files" "$name.files.json" || :
wait "$!"
[ "$(cat -- "$part/.sum")" = "$sum  -" ] || { echo "The back-up did not arrive as it was." >&2; exit 65; }
for file in "$name.files" "$name.files.json" "$name" "$name.json"; do
    sync -- "$part/$file"
    mv -f -- "$part/$file" "$folder/$file"
done
"""


def seal(spec: ClientSpec, name: str) -> Command:
    """Print the length and the SHA-256 of the file that a back-up is downloaded as; reads all of it."""
    argv = ("bash", "-c", SEAL, "alfa-seal", dump.folder(spec), name, f"{dump.path(spec, name)}.seal")
    return Command(argv, sudo=True, timeout_s=DEADLINE_S, log=False, detached=f"seal-{name}")


def parse_seal(text: str) -> tuple[int, str]:
    """What `seal` printed: bytes, and SHA-256.

    Raises:
        RemoteError: it is something else.
    """
    try:
        size, digest = text.split()
        return int(size), digest
    except ValueError as error:
        raise RemoteError("The back-up cannot be measured.") from error


def send(spec: ClientSpec, name: str) -> Command:
    """Print a back-up as one file."""
    argv = ("bash", "-c", SEND, "alfa-send", dump.folder(spec), name)
    return Command(argv, sudo=True, timeout_s=DEADLINE_S, log=False)


def receive(spec: ClientSpec, name: str, sha256: str) -> Command:
    """The back-up on standard input is on the server; exit status `DAMAGED` where it is not that one."""
    argv = ("bash", "-c", RECEIVE, "alfa-receive", dump.folder(spec), name, sha256)
    return Command(argv, sudo=True, timeout_s=DEADLINE_S, log=False)
