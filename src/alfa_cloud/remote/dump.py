"""A client's database as a file on its own server, and back: the one way to dump and to restore.

A dump is read and put back with the client's own login (docs/decisions/0007). Before it is put back, the database's
administrator drops the database and makes it anew: nothing that the client made is left or run, neither the owner nor
the mark changes, and connections do not stand in the way. Both run detached, as scripts that can be begun again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import dump_mariadb, dump_postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec, DatabaseEngine

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
DEADLINE_S: Final = 6 * 3600
COUNT_S: Final = 3600

DAMAGED: Final = 65
"""Exit status: the dump is not whole, or not what it was; nothing was touched."""
DIFFERS: Final = 66
"""Exit status: what was restored is not what the dump holds."""

# The functions are the engine's. The dump bears its name when it is on the disk and was read back whole.
DUMP: Final = """
set -euo pipefail
umask 077
file=$1; shift
trap 'rm -f -- "$file.part" "$file.counts.part"' EXIT
trap 'exit 143' TERM
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
"$@" </dev/null | pack >"$file.part"
sync -- "$file.part"
unpack <"$file.part" | count >"$file.counts.part" || exit 65
size=$(stat --format=%s -- "$file.part")
sum=$(sha256sum <"$file.part")
echo "$began $size ${sum%% *}" >>"$file.counts.part"
mv -f -- "$file.part" "$file"
mv -f -- "$file.counts.part" "$file.counts"
sync -- "$(dirname -- "$file")"
"""

RESTORE: Final = """
set -euo pipefail
file=$1 sum=$2 counts=$3 expected=$4; shift 4
admin=("${@:2:$1}"); shift $(($1 + 1))
load=("${@:2:$1}"); shift $(($1 + 1))
[ "$(sha256sum <"$file")" = "$sum  -" ] || { echo "$file is damaged; nothing was touched." >&2; exit 65; }
"${admin[@]}"
unpack <"$file" | mend | "${load[@]}"
found=$(printf %s "$counts" | "$@" | LC_ALL=C sort | sha256sum)
[ "$found" = "$expected  -" ] || { echo "The restored tables have other rows than the dump." >&2; exit 66; }
"""

NONE_LEFT: Final = 'for path; do [ ! -e "$path" ] || exit 1; done'

# A folder without dumps is none to keep.
REMOVE: Final = """
set -eu
folder=$1; shift
rm -f -- "$@"
[ ! -d "$folder" ] || rmdir --ignore-fail-on-non-empty -- "$folder"
"""


class Engine(Protocol):
    """What is particular to a database system."""

    @property
    def FUNCTIONS(self) -> str:  # noqa: N802  a constant of a module
        """Shell: `pack` and `unpack` a dump's file; `mend` what is unpacked so that the client can load it; `count` the
        rows of what is unpacked, or fail where it is not whole."""

    @property
    def COUNTS(self) -> str:  # noqa: N802
        """SQL that prints each table, in hexadecimal, with its rows."""

    @property
    def CHECKSUMS(self) -> str:  # noqa: N802
        """SQL that prints the same, and a checksum of what is in the rows: in whatever order they lie."""

    @property
    def SIZE(self) -> str:  # noqa: N802
        """SQL that prints about how many bytes the database holds."""

    def dump_argv(self, spec: ClientSpec, /) -> tuple[str, ...]:
        """Print a client's database as one consistent picture."""

    def stream_argv(self, spec: ClientSpec, /) -> tuple[str, ...]:
        """The same, not compressed."""

    def load_argv(self, spec: ClientSpec, /) -> tuple[str, ...]:
        """Put what a dump holds into the client's database."""

    def ask(self, spec: ClientSpec, sql: str, timeout_s: float, /) -> Command:
        """Run SQL of ours by the client's own login."""

    def empty(self, spec: ClientSpec, /) -> Command:
        """The client's database is as new."""

    def table_of(self, header: str, /) -> str | None:
        """The table that a line printed by `count` is about."""


def engine_of(spec: ClientSpec) -> Engine:
    """The client's database system."""
    if spec.engine is DatabaseEngine.MARIADB:
        return dump_mariadb
    return dump_postgresql


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a dump holds.

    Args:
        reason: why it was made, in a word.
        tables: the rows of each table in the dump; of PostgreSQL with the schema, as in `public.users`.
        created_at: RFC 3339, by the server's clock.
    """

    engine: DatabaseEngine
    reason: str
    tables: Mapping[str, int]
    size_bytes: int
    sha256: str
    created_at: str

    def render(self) -> bytes:
        """As it lies beside the dump."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """What `render` wrote.

        Raises:
            RemoteError: it is something else.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            return cls(**{**raw, "engine": DatabaseEngine(raw["engine"])})
        except (ValueError, TypeError, KeyError) as error:
            raise RemoteError("The list of a dump's tables cannot be read.") from error

    def fingerprint(self) -> str:
        """The SHA-256 of what `count_rows` prints, sorted, where the database holds just this."""
        lines = sorted(f"{name.encode().hex()} {rows}\n" for name, rows in self.tables.items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def folder(spec: ClientSpec) -> str:
    """Where a client's dumps lie, also when the client is gone; only root can read it, and the uid marks it."""
    return f"{spec.layout.root}/archive/{spec.uid}"


def path(spec: ClientSpec, name: str) -> str:
    """Where a dump lies.

    Raises:
        ValueError: the name is not one for a file.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name for a dump")
    return f"{folder(spec)}/{name}"


def manifest_path(spec: ClientSpec, name: str) -> str:
    """Where a dump's manifest lies: written last, it says that the dump is good."""
    return f"{path(spec, name)}.json"


def counts_path(spec: ClientSpec, name: str) -> str:
    """Where `write` leaves what the manifest is made of."""
    return f"{path(spec, name)}.counts"


def write(spec: ClientSpec, name: str) -> Command:
    """The dump is there, and was read back whole; exit status `DAMAGED` where it was not."""
    engine = engine_of(spec)
    argv = ("bash", "-c", engine.FUNCTIONS + DUMP, "alfa-dump", path(spec, name), *engine.dump_argv(spec))
    return Command(argv, sudo=True, timeout_s=DEADLINE_S, detached=f"dump-{name}")


def parse_written(spec: ClientSpec, reason: str, text: str) -> Manifest:
    """The manifest of a dump, from what `write` left.

    Raises:
        RemoteError: it is something else.
    """
    *lines, last = text.rstrip("\n").split("\n")
    try:
        created_at, size, digest = last.split(" ")
        return Manifest(spec.engine, reason, _counted(spec, lines), int(size), digest, created_at)
    except ValueError as error:
        raise RemoteError("What a dump holds cannot be read.") from error


def parse_counted(spec: ClientSpec, text: str) -> dict[str, int]:
    """The rows of each table, from what the engine's `count` printed.

    Raises:
        RemoteError: it is something else.
    """
    try:
        return _counted(spec, text.splitlines())
    except ValueError as error:
        raise RemoteError("What a dump holds cannot be read.") from error


def _counted(spec: ClientSpec, lines: Sequence[str]) -> dict[str, int]:
    tables: dict[str, int] = {}
    for line in lines:
        rows, _, header = line.partition("\t")
        table = engine_of(spec).table_of(_unescaped(header))
        if table is None:
            raise ValueError(header)
        tables[table] = tables.get(table, 0) + int(rows)
    return dict(sorted(tables.items()))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


def restore(spec: ClientSpec, name: str, manifest: Manifest) -> Command:
    """The client's database holds what the dump does, and nothing else; exit status `DAMAGED` or `DIFFERS` else."""
    engine = engine_of(spec)
    empty, load = engine.empty(spec), engine.load_argv(spec)
    argv = (
        "bash", "-c", engine.FUNCTIONS + RESTORE, "alfa-restore", path(spec, name), manifest.sha256, engine.COUNTS,
        manifest.fingerprint(), str(len(empty.argv)), *empty.argv, str(len(load)), *load, *count_rows(spec).argv,
    )  # fmt: skip
    return Command(argv, stdin=empty.stdin, sudo=True, timeout_s=DEADLINE_S, detached=f"restore-{name}")


def count_rows(spec: ClientSpec) -> Command:
    """Print each of the client's tables, in hexadecimal, with its rows: all at one moment."""
    engine = engine_of(spec)
    return engine.ask(spec, engine.COUNTS, COUNT_S)


def parse_rows(text: str) -> dict[str, int]:
    """The answer of `count_rows`.

    Raises:
        RemoteError: it is something else.
    """
    try:
        pairs = [line.split(" ") for line in text.splitlines() if line]
        return {bytes.fromhex(name).decode(): int(rows) for name, rows in pairs}
    except ValueError as error:
        raise RemoteError("The rows of the client's tables cannot be counted.") from error


def checksums(spec: ClientSpec) -> Command:
    """Print each of the client's tables, in hexadecimal, with its rows and a checksum of them: all at one moment.

    Tables with the same rows have the same checksum on any two servers of one database system.
    """
    engine = engine_of(spec)
    return engine.ask(spec, engine.CHECKSUMS, DEADLINE_S)


def parse_checksums(text: str) -> dict[str, tuple[int, str]]:
    """The answer of `checksums`: the rows and the checksum of each table.

    Raises:
        RemoteError: it is something else.
    """
    try:
        found = [line.split(" ") for line in text.splitlines() if line]
        return {bytes.fromhex(name).decode(): (int(rows), str(int(checksum))) for name, rows, checksum in found}
    except ValueError as error:
        raise RemoteError("The checksums of the client's tables cannot be read.") from error


def log_in(spec: ClientSpec) -> Command:
    """Fails where the client's own login does not; it waits for no table."""
    return engine_of(spec).ask(spec, "SELECT 1;", 60)


def measure(spec: ClientSpec) -> Command:
    """Print about how many bytes the client's database holds."""
    engine = engine_of(spec)
    return engine.ask(spec, engine.SIZE, 120)


def file_size(spec: ClientSpec, name: str) -> Command:
    """Print how long a dump is; fails where it is not there."""
    return Command(("stat", "--format=%s", "--", path(spec, name)), sudo=True, log=False, timeout_s=30)


def remove(spec: ClientSpec, name: str) -> Command:
    """Nothing of a dump is left."""
    argv = ("sh", "-c", REMOVE, "alfa-remove-dump", folder(spec), *_files(spec, name))
    return Command(argv, sudo=True, timeout_s=300)


def none_left(spec: ClientSpec, name: str) -> Command:
    """Exit status 0 where nothing of a dump is there."""
    return Command(("sh", "-c", NONE_LEFT, "alfa-none-left", *_files(spec, name)), sudo=True, log=False, timeout_s=30)


def _files(spec: ClientSpec, name: str) -> list[str]:
    """All that may be there of a dump, the manifest first: without it the rest counts for nothing."""
    return [path(spec, name) + suffix for suffix in (".json", ".counts", ".counts.part", ".part", "")]
