r"""Dumps of PostgreSQL: what is run to write, read and restore one, and how its text is understood.

The dump is pg_dump's own format, which `pg_restore` sends to the server: no `psql` reads it, so nothing in it can be a
command of psql's (`\!`; CVE-2025-8714). It is restored by the client's own login, so what it holds gains no rights.
"""

from __future__ import annotations

import re
from typing import Final

from alfa_cloud.remote import postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec

# Reading all rows needs all of the file: pg_restore fails where a block is missing. Names may hold line ends.
FUNCTIONS: Final = r"""
pack() { cat; }
unpack() { cat; }
mend() { cat; }
count() {
    pg_restore --data-only --file=- | LC_ALL=C awk '
        function ends(text, with) { return substr(text, length(text) - length(with) + 1) == with }
        key != "" { if ($0 == "\\.") key = ""; else rows[key]++; next }
        head != "" { head = head "\n" $0 }
        head == "" && /^COPY / { head = $0 }
        head != "" && ends($0, " FROM stdin;") { key = head; rows[key] += 0; head = "" }
        END {
            if (key != "" || head != "") { print "The dump is not whole." >"/dev/stderr"; exit 65 }
            for (name in rows) {
                text = name; gsub(/\\/, "&&", text); gsub(/\n/, "\\n", text)
                print rows[name] "\t" text
            }
        }'
}
"""

IDENT: Final = r'([^\s".]+|"(?:[^"]|"")+")'
HEADER: Final = re.compile(rf"COPY {IDENT}\.{IDENT} ")

BEGIN: Final = """
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL search_path = pg_catalog;
"""

TABLES: Final = """
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND left(n.nspname, 3) <> 'pg_'
   AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e') \\gexec
COMMIT;
"""

COUNTS: Final = f"""{BEGIN}
SELECT format('SELECT %L || count(*) FROM ONLY %I.%I',
              encode(convert_to(n.nspname || '.' || c.relname, 'UTF8'), 'hex') || ' ', n.nspname, c.relname)
{TABLES}"""  # noqa: S608  constants

# A row is the text of its values, in the order of their names: that of the columns is another after a dump.
CHECKSUMS: Final = f"""{BEGIN}
SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL timezone = 'UTC';
SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'; SET LOCAL lc_monetary = 'C';
SET LOCAL row_security = off;
SELECT format('SELECT %L || count(*) || '' '' || coalesce(sum((''x'' || left(md5(ROW(%s)::text), 16))::bit(64)::bigint),
                                                          0) FROM ONLY %I.%I AS r',
              encode(convert_to(n.nspname || '.' || c.relname, 'UTF8'), 'hex') || ' ',
              (SELECT string_agg(format('r.%I', a.attname), ', ' ORDER BY a.attname COLLATE "C") FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), n.nspname, c.relname)
{TABLES}"""  # noqa: S608  constants

SIZE: Final = "SELECT pg_database_size(current_database());"


def dump_argv(spec: ClientSpec) -> tuple[str, ...]:
    """Print a client's database as one consistent picture."""
    return _dump_argv(spec, 1)


def stream_argv(spec: ClientSpec) -> tuple[str, ...]:
    """The same, not compressed."""
    return _dump_argv(spec, 0)


def _dump_argv(spec: ClientSpec, level: int) -> tuple[str, ...]:
    return postgresql.client_argv(
        spec, "pg_dump", "--format=custom", f"--compress={level}", "--no-owner", "--no-privileges", "--no-password",
        "--lock-wait-timeout=60000",
    )  # fmt: skip


def load_argv(spec: ClientSpec) -> tuple[str, ...]:
    """Put what a dump holds into the client's database."""
    return postgresql.client_argv(
        spec, "pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", "--no-password"
    )


def ask(spec: ClientSpec, sql: str, timeout_s: float) -> Command:
    """Run SQL of ours by the client's own login."""
    return postgresql.psql_as_client(spec, sql, log=False, timeout_s=timeout_s)


def empty(spec: ClientSpec) -> Command:
    """The client's database is as new."""
    return postgresql.empty_database(spec)


def table_of(header: str) -> str | None:
    """The table that a dump's line is about, with its schema."""
    found = HEADER.match(header)
    return found and ".".join(_unquoted(name) for name in found.groups())


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
