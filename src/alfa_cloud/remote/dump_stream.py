"""A client's database straight into another server's: what is run at both ends of the stream, and nothing lies between.

On its way in, the same text that is loaded is counted: what was cut short is noticed even where all programs ended
well. The client's folder there is locked meanwhile, by all programs that take part: two streams never mix.
"""

from __future__ import annotations

from typing import Final

from alfa_cloud.remote.command import Command
from alfa_cloud.remote.dump import DEADLINE_S, engine_of
from alfa_cloud.specs import ClientSpec

BUSY: Final = 75
"""Exit status: another stream into the database does not end; nothing was touched."""

PRODUCE: Final = """
set -euo pipefail
"$@" </dev/null | zstd --quiet --stdout
"""

# What one of the two readers leaves unread at the end is read by `cat`: else the other one's text would end there too.
# A load that failed breaks the pipe, and then it is no wonder that the count does not come to its end.
CONSUME: Final = r"""
set -euo pipefail
umask 077
client=$1 counted=$2 sql=$3; shift 3
admin=("${@:2:$1}"); shift $(($1 + 1))
exec 9<"$client"
flock --wait 60 9 || { echo "Another copy into this database does not end." >&2; exit 75; }
rm -f -- "$counted"
trap 'rm -f -- "$counted.part"' EXIT
printf %s "$sql" | "${admin[@]}" >&2
load() {
    local codes
    zstd --quiet --decompress --stdout | tee /dev/fd/3 | { mend | { "$@" && cat >/dev/null; }; } >&2 3>&-
    codes=("${PIPESTATUS[@]}")
    if [ "${codes[2]}" -ne 0 ]; then [ "${codes[1]}" -eq 0 ] && return 2 || return 1; fi
    [ "${codes[*]}" = "0 0 0" ] || return 3
}
set +e
{ load "$@"; } 3>&1 | { count && cat >/dev/null; } >"$counted.part"
case "${PIPESTATUS[*]}" in
    "0 0") ;;
    "1 "* | "2 0") exit 1 ;;
    *) echo "The dump did not arrive whole." >&2; exit 65 ;;
esac
set -e
sync -- "$counted.part"
mv -f -- "$counted.part" "$counted"
"""

# Whose descriptor 9 is the client's folder belongs to a stream. One whose worker died ends by itself, and is let: where
# it is killed while it empties the database, the server goes on with that, and the next one would meet it. All are
# halted before the first is killed: a shell goes on with its next command when one ends.
STOP: Final = """
set -eu
client=$1 patience=$2
[ -d "$client" ] || exit 0
turn=0
until flock --nonblock "$client" true; do
    [ "$turn" -lt $((patience + 300)) ] || { echo "A copy into this database does not end." >&2; exit 75; }
    turn=$((turn + 1))
    sleep 0.1
    [ "$turn" -ge "$patience" ] || continue
    for signal in STOP KILL; do
        for process in /proc/[0-9]*; do
            [ ! "$process/fd/9" -ef "$client" ] || kill -s "$signal" "${process#/proc/}" 2>/dev/null || :
        done
    done
done
"""


def produce(spec: ClientSpec) -> Command:
    """Print a client's database as one consistent picture, compressed."""
    argv = ("bash", "-c", PRODUCE, "alfa-produce", *engine_of(spec).stream_argv(spec))
    return Command(argv, sudo=True, timeout_s=DEADLINE_S)


def consume(spec: ClientSpec) -> Command:
    """The client's database holds what is read, and nothing else; `counted_path` says what that was.

    Look first whether the database is the client's. Exit status `DAMAGED` where the dump was not whole; there, and
    wherever it ends with an error, some part of it is in the database.
    """
    engine = engine_of(spec)
    empty = engine.empty(spec)
    argv = (
        "bash", "-c", engine.FUNCTIONS + CONSUME, "alfa-consume", spec.directory, counted_path(spec),
        empty.stdin.decode(), str(len(empty.argv)), *empty.argv, *engine.load_argv(spec),
    )  # fmt: skip
    return Command(argv, sudo=True, timeout_s=DEADLINE_S)


def counted_path(spec: ClientSpec) -> str:
    """Where `consume` leaves the rows of each table that came by."""
    return f"{spec.directory}/.counted"


def stop(spec: ClientSpec, *, patience_s: float = 10) -> Command:
    """Nothing reads a stream into the client's database; what still did after so many seconds was killed."""
    argv = ("bash", "-c", STOP, "alfa-stop", spec.directory, str(round(patience_s * 10)))
    return Command(argv, sudo=True, timeout_s=patience_s + 60)
