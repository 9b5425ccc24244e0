r"""Commands that outlive the connection: the scripts that start, follow, watch and stop them, as pure builders.

`OPERATION_DIR/NAME/` holds `lock` (held by the command and all that it started), `started` (process, fence, time),
`output` (both streams, as printed) and at the end `status` (exit status, seconds). `stopped` has what counts instead
where it was asked to end and left none. `OPERATION_DIR/fence` is the highest fence that asked. Status file: done. Lock
held: running. Stopped: done. Started and none of these, or `NAME.died-1`: died. Else: absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import CAPTURE_BYTES
from alfa_cloud.specs import Layout

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
DEATHS: Final = 3
"""How often one command may die without a status before it counts as failed."""
OUTPUT_BYTES: Final = 128 * 1024**2
"""How much of a command's output is kept: so much more than an operation's log takes that this counts what it omits."""

SWEPT_AT_ONCE: Final = 2_000


class Started:
    """What the exit status of `start` means."""

    NEW: Final = 0
    CUT: Final = 74
    """Its standard input did not arrive whole: nothing was started."""
    HELD: Final = 75
    DONE: Final = 76
    FENCED: Final = 77
    DIED: Final = 78
    DIED_OFTEN: Final = 79


class State(StrEnum):
    """What a detached command is."""

    ABSENT = "absent"
    RUNNING = "running"
    DIED = "died"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a detached command found.

    Args:
        state: what it is.
        output_bytes: how long its output was, at the time of the look.
        exit_status: what it left; meaningful where it is done.
        seconds: how long it ran; the same.
    """

    state: State
    output_bytes: int = 0
    exit_status: int = 0
    seconds: int = 0


# In all scripts: flock(1), setsid(1) of util-linux; timeout(1), tail(1), stdbuf(1) and more of coreutils; sh is dash or
# bash.
LOOK: Final = r"""
run=$1/$2
free() { flock -n -s "$run/lock" true; }
size() { [ ! -r "$run/output" ] && echo 0 || wc -c <"$run/output"; }
look() {
    if [ -e "$run/status" ]; then read -r code spent <"$run/status"; echo "done $(size) $code $spent"
    elif [ -e "$run/lock" ] && ! free; then echo "running $(size) 0 0"
    elif [ -e "$run/status" ]; then look
    elif [ -e "$run/stopped" ]; then read -r code spent <"$run/stopped"; echo "done $(size) $code $spent"
    elif [ -e "$run/started" ] || [ -e "$run.died-1" ]; then echo "died $(size) 0 0"
    else echo "absent 0 0 0"; fi
}
"""

# The wrapper: leader of a session of its own. Neither a signal for the session nor a full disk keeps it from writing
# the status; only where its folder was removed nobody asks for it any more.
#
# What the command prints goes through a pipe to `keep`, which drops what is over the cap and never ends the command.
# At the command's end it is waited for, but not where a daemon that the command started holds the pipe.
WRAPPER: Final = r"""
run=$1 fence=$2 mask=$3 cap=$4; shift 4
trap : HUP INT TERM
began=$(date +%s)
keep() {
    trap '' HUP INT TERM
    stdbuf -o0 head -c "$cap"
    [ "$(head -c 1 | wc -c)" -eq 0 ] || printf '\n[the output was cut off here, after %s bytes]\n' "$cap"
    cat >/dev/null
    rm -f "$run/pipe"
}
[ -p "$run/pipe" ] || mkfifo "$run/pipe" || exit 1
exec 3<>"$run/pipe" 4<"$run/pipe" 5>"$run/pipe"
exec 3>&-
echo "$$ $fence $began" >"$run/started.new" && chmod 644 "$run/started.new" || exit 1
mv -f "$run/started.new" "$run/started" || exit 1
echo started
exec >>"$run/output" 2>&1
(exec <&4 4<&- 5>&-; keep) &
exec 4<&-
(umask "$mask"; exec "$@") >&5 2>&1 5>&-
code=$?
exec </dev/null 5>&-
turn=0
while [ -e "$run/pipe" ] && [ "$turn" -lt 100 ]; do
    turn=$((turn + 1))
    sleep 0.02
done
rm -f "$run/pipe"
until echo "$code $(($(date +%s) - began))" >"$run/status.new" && chmod 644 "$run/status.new" &&
    sync "$run/output" "$run/status.new" && mv -f "$run/status.new" "$run/status"; do
    [ -d "$run" ] || exit "$code"
    sleep 1
done
sync "$run"
"""

# The lock on the folder itself makes fence, look and start one step; nothing that is started inherits it.
START: Final = r"""
mask=$(umask); umask 077
dir=$1 run=$1/$2 fence=$3 size=$4 aside=$5 deaths=$6 cap=$7 wrapper=$8; shift 8
enter() {
    mkdir -p "$dir" || exit 73
    [ -z "${SUDO_UID-}" ] || chown "$SUDO_UID:$SUDO_GID" "$dir" || exit 73
    exec 8<"$dir" || exit 73
    flock -w 20 8 || exit 75
    newest=0; [ ! -e "$dir/fence" ] || read -r newest <"$dir/fence"; newest=${newest:-0}
    [ "$fence" -ge "$newest" ] || exit 77
    if [ "$fence" -gt "$newest" ]; then
        echo "$fence" >"$dir/fence.new" && chmod 644 "$dir/fence.new" && mv -f "$dir/fence.new" "$dir/fence" || exit 73
    fi
    take_lock
    [ ! -e "$run/started" ] || set_aside
}
take_lock() {
    [ ! -e "$run/status" ] || exit 76
    mkdir -p "$run" && chmod 711 "$run" || exit 73
    exec 9>>"$run/lock" || exit 73
    flock -n 9 || exit 75
    chmod 644 "$run/lock"
    [ ! -e "$run/status" ] && [ ! -e "$run/stopped" ] || exit 76
}
set_aside() {
    [ "$aside" = aside ] || exit 78
    death=1; while [ -e "$run.died-$death" ]; do death=$((death + 1)); done
    [ "$death" -lt "$deaths" ] || exit 79
    mv "$run" "$run.died-$death" || exit 73
    take_lock
}
receive() {
    spool=$(mktemp "$dir/.stdin.XXXXXX") || exit 73
    exec 5<"$spool" 6>"$spool" 7<"$spool"
    rm -f "$spool"
    cat >&6 || exit 74
    exec 6>&-
    [ "$(wc -c <&5)" -eq "$size" ] || exit 74
    exec 5<&-
}
enter
exec 7</dev/null
if [ "$size" -gt 0 ]; then
    exec 8<&- 9>&-
    receive
    enter
fi
: >>"$run/output" || exit 73
ready=$(setsid sh -c "$wrapper" alfa-detached "$run" "$fence" "$mask" "$cap" "$@" <&7 2>/dev/null 7<&- 8<&- &)
[ "$ready" = started ] || exit 70
"""

# tail ends by itself soon after the watcher; what it may have left out, the size at the end tells.
FOLLOW: Final = (
    LOOK
    + r"""
watch() {
    turn=0
    while [ ! -e "$run/status" ]; do
        [ $((turn % 10)) -ne 0 ] || ! free || break
        turn=$((turn + 1))
        sleep 0.1
    done
}
if [ -e "$run/output" ]; then
    watch </dev/null >/dev/null 2>&1 &
    watcher=$!
    tail -c "+$(($3 + 1))" -s 0.1 --pid="$watcher" -f "$run/output" 2>/dev/null
    kill "$watcher" 2>/dev/null
fi
look >&2
"""
)

STATUS: Final = LOOK + "look\n"

# Whose descriptor 9 is the lock belongs to the command, and so does all of its session: free of reused process ids.
#
# What is asked to end never counts as died, from before it is asked: whoever follows it would start it again. All are
# halted before the first is killed: a shell goes on with its next command when one ends.
STOP: Final = (
    LOOK
    + r"""
session_of() {
    read -r line <"$1/stat" || return 1
    set -- ${line##*) }
    parent=$2 session=$4
} 2>/dev/null
send() {
    sessions=' '
    for process in /proc/[0-9]*; do
        [ "$process/fd/9" -ef "$run/lock" ] && session_of "$process" && sessions="$sessions$session "
    done
    for process in /proc/[0-9]*; do
        session_of "$process" || continue
        case $sessions in *" $session "*) ;; *) continue ;; esac
        # The leader writes the status, and timeout(1), its child, would send TERM to the command twice.
        [ "$1" != TERM ] || [ ! -e "/proc/$session" ] ||
            { [ "$parent" != "$session" ] && [ "$process" != "/proc/$session" ]; } || continue
        kill -s "$1" "${process#/proc/}" 2>/dev/null && asked=yes
    done
}
mark() {
    echo "$1 0" >"$run/stopped.new" && chmod 644 "$run/stopped.new" && mv -f "$run/stopped.new" "$run/stopped"
}
[ -e "$run/lock" ] && [ ! -e "$run/status" ] || exit 0
[ -O "$run/lock" ] || [ "$(id -u)" -eq 0 ] || exit 5
umask 077
asked='' turn=0
! free || [ -e "$run/started" ] || exit 0
[ -e "$run/stopped" ] || mark 143
until free; do
    [ -n "$asked" ] || send TERM
    [ "$turn" -ne "$3" ] || mark 137
    [ "$turn" -lt "$3" ] || { send STOP; send KILL; }
    [ "$turn" -lt $(($3 + 100)) ] || exit 6
    turn=$((turn + 1))
    sleep 0.1
done
"""
)


# Standard input names those that stay. The folder of an operation is as old as the last command that began in it.
SWEEP: Final = r"""
set -eu
cd -- "$1" 2>/dev/null || exit 0
{ cat; echo; find . -mindepth 1 -maxdepth 1 -type d -mtime "+$2" -name "$3" -printf '%f\n'; } |
    awk -v most="$4" 'past && !($0 in spared) && n++ < most { print } $0 == "" { past = 1 } !past { spared[$0] }' |
    xargs --no-run-if-empty rm -rf --
"""


def start(operation_dir: str, fence: int, command: Command, *, set_aside: bool = False) -> Command:
    """Start a command, unless it runs, is done, or was fenced off; the exit status is one of `Started`.

    Args:
        set_aside: whether an earlier run that died is moved away first.

    Raises:
        ValueError: the name is missing, or is not one for a folder.
    """
    if command.detached is None or not NAME.fullmatch(command.detached):
        raise ValueError(f"{command.detached!r} is not a name for a detached command")
    inner = replace(command, sudo=False, detached=None, stdin=b"")
    options = (
        str(fence),
        str(len(command.stdin)),
        "aside" if set_aside else "keep",
        str(DEATHS),
        str(OUTPUT_BYTES),
        WRAPPER,
    )
    script = _script(START, operation_dir, command.detached, *options, *inner.bounded_argv(), sudo=command.sudo)
    return replace(script, stdin=command.stdin, timeout_s=120)


def follow(operation_dir: str, name: str, offset: int, *, sudo: bool, timeout_s: float) -> Command:
    """Print a command's output from this byte on until it ends; then what it is, on standard error."""
    return replace(_script(FOLLOW, operation_dir, name, str(offset), sudo=sudo), timeout_s=timeout_s)


def status(operation_dir: str, name: str) -> Command:
    """Print what a command is."""
    return replace(_script(STATUS, operation_dir, name, sudo=False), timeout_s=20)


def stop(operation_dir: str, name: str, *, sudo: bool, kill_after_s: float = 10) -> Command:
    """Ask a command to end, and kill it in the end; exit status 5 where only root may."""
    script = _script(STOP, operation_dir, name, str(round(kill_after_s * 10)), sudo=sudo)
    return replace(script, timeout_s=kill_after_s + 30)


def head(operation_dir: str, name: str, *, sudo: bool) -> Command:
    """Print the first part of a command's output."""
    argv = ("head", f"--bytes={CAPTURE_BYTES}", "--", f"{operation_dir}/{name}/output")
    return Command(argv, sudo=sudo, timeout_s=60, log=False)


def sweep(layout: Layout, days: int, spared: Iterable[str]) -> Command:
    """The folders of operations in which nothing began for these days are gone, but for those of the spared ones.

    No more than `SWEPT_AT_ONCE`: the next sweep takes the others.
    """
    argv = (layout.operation_dir(""), str(days), "????????-????-????-????-????????????", str(SWEPT_AT_ONCE))
    stdin = "".join(f"{operation_id}\n" for operation_id in spared).encode()
    return Command(("sh", "-c", SWEEP, "alfa-sweep", *argv), stdin=stdin, sudo=True, timeout_s=300, log=False)


def parse_look(text: bytes) -> Look | None:
    """What a script said last; None where it was cut off before it could."""
    for line in reversed(text.decode("ascii", "replace").splitlines()):
        words = line.split()
        if len(words) == 4 and words[0] in set(State) and all(word.isdigit() for word in words[1:]):
            size, code, seconds = map(int, words[1:])
            return Look(State(words[0]), size, code, seconds)
    return None


def _script(script: str, operation_dir: str, name: str, *arguments: str, sudo: bool) -> Command:
    return Command(("sh", "-c", script, "alfa-detached", operation_dir, name, *arguments), sudo=sudo, log=False)
