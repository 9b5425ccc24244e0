r"""Dumps of MariaDB: what is run to write, read and restore one, and how its text is understood.

The dump is mariadb-dump's SQL, by zstd. It is restored by the client's own login, which may name nobody else as the
definer of a view, a trigger, an event or a routine: those names are left out, and the client is the definer.
`--sandbox` and `--binary-mode` keep `mariadb` from running commands (`\!`, `source`) that a dump may hold.
"""

from __future__ import annotations

import re
from typing import Final

from alfa_cloud.remote import mariadb
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec

MAX_PACKET: Final = "--max-allowed-packet=1G"
"""Of one statement: the most that MariaDB takes."""

# mariadb-dump begins a line for each row, but for the first where columns are named, and up to MariaDB 10.6 for none
# (MDEV-25152). Names may hold line ends, values do not. DEFINER stands at the start of a line, as no row does.
FUNCTIONS: Final = r"""
pack() { zstd --quiet --stdout; }
unpack() { zstd --quiet --decompress --stdout; }
mend() {
    user='`([^`]|``)*`(@`([^`]|``)*`)?'
    LC_ALL=C sed -E -e '/^[(]/b' -e '/^DELIMITER ;;$/{n' \
        -e "s%^CREATE DEFINER=$user %CREATE %" -e '}' -e "s%^(/\*!50013 )DEFINER=$user %\1%" \
        -e "s%^(/\*!50003 CREATE\*/ )/\*!50017 DEFINER=$user\*/ %\1%" \
        -e "s%^(/\*!50106 CREATE\*/ )/\*!50117 DEFINER=$user\*/ %\1%"
}
count() {
    LC_ALL=C awk '
        function last(text) { return substr(text, length(text) - 1) == ");" }
        key != "" {
            if (substr($0, 1, 1) != "(") { bad = 1; exit }
            rows[key]++
            if (last($0)) key = ""
            next
        }
        head == "" && $0 == "DELIMITER ;;" { body = 1 }
        head == "" && $0 == "DELIMITER ;" { body = 0 }
        body { next }
        head != "" { head = head "\n" $0 }
        head == "" && /^(CREATE TABLE|INSERT INTO) `/ { head = $0 }
        head == "" { next }
        match(head, /^CREATE TABLE `([^`]|``)+` \(/) { rows[substr(head, 1, RLENGTH)] += 0; head = "" }
        match(head, /^INSERT INTO `([^`]|``)+`( \((`([^`]|``)+`(, )?)+\))? VALUES/) {
            name = substr(head, 1, RLENGTH); values = substr(head, RLENGTH + 1); head = ""
            key = last(values) ? "" : name
            gsub(/\\./, "", values); gsub(/\047[^\047]*\047/, "", values)
            rows[name] += gsub(/\(/, "", values)
        }
        END {
            if (bad || key != "" || head != "" || $0 !~ /^-- Dump completed/) {
                print "The dump is not whole." >"/dev/stderr"
                exit 65
            }
            for (name in rows) {
                text = name; gsub(/\\/, "&&", text); gsub(/\n/, "\\n", text)
                print rows[name] "\t" text
            }
        }'
}
"""

HEADER: Final = re.compile(r"(?:CREATE TABLE|INSERT INTO) `((?:[^`]|``)+)`")

COUNTS: Final = """
SET SESSION group_concat_max_len = 1073741824, lock_wait_timeout = 60;
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;
SELECT GROUP_CONCAT(CONCAT('SELECT CONCAT(''', LOWER(HEX(CONVERT(table_name USING utf8mb4))),
                           ' '', COUNT(*)) FROM `', REPLACE(table_name, '`', '``'), '`') SEPARATOR ' UNION ALL ')
  INTO @counts FROM information_schema.tables
 WHERE table_schema = DATABASE() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED');
EXECUTE IMMEDIATE COALESCE(@counts, 'SELECT 1 FROM DUAL WHERE FALSE');
"""

# A value is text without a comma, and `-` where it is NULL: strings in hexadecimal, the long ones as their MD5, since
# what HEX() makes of them may be more than max_allowed_packet. Names are compared as bytes: `a` and `A` are two tables.
CHECKSUMS: Final = """
SET SESSION group_concat_max_len = 1073741824, lock_wait_timeout = 60, sql_mode = '', time_zone = '+00:00',
    timestamp = 1, lc_time_names = 'en_US';
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;
SELECT GROUP_CONCAT(CONCAT('SELECT CONCAT(''', LOWER(HEX(CONVERT(table_name USING utf8mb4))),
                           ' '', COUNT(*), '' '', COALESCE(SUM(CAST(CONV(LEFT(MD5(CONCAT_WS('','', ', texts,
                           ')), 16), 16, 10) AS UNSIGNED)), 0)) FROM `', REPLACE(table_name, '`', '``'), '`')
                    SEPARATOR ' UNION ALL ')
  INTO @checksums FROM (
    SELECT t.table_name, GROUP_CONCAT(REPLACE(
               CASE WHEN c.data_type = 'bit' THEN 'COALESCE(? + 0, ''-'')'
                    WHEN c.character_octet_length < 65535 THEN 'COALESCE(HEX(?), ''-'')'
                    WHEN c.character_octet_length IS NOT NULL OR c.data_type IN (
                        'geometry', 'point', 'linestring', 'polygon', 'multipoint', 'multilinestring', 'multipolygon',
                        'geometrycollection', 'vector') THEN 'COALESCE(MD5(?), ''-'')'
                    ELSE 'COALESCE(CAST(? AS CHAR), ''-'')' END,
               '?', CONCAT('`', REPLACE(c.column_name, '`', '``'), '`')) ORDER BY c.ordinal_position) AS texts
      FROM information_schema.tables t
      JOIN information_schema.columns c
        ON c.table_schema = t.table_schema AND BINARY c.table_name = BINARY t.table_name
     WHERE t.table_schema = DATABASE() AND t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
       AND COALESCE(c.generation_expression, '') NOT IN ('ROW START', 'ROW END')
     GROUP BY BINARY t.table_name) AS found;
EXECUTE IMMEDIATE COALESCE(@checksums, 'SELECT 1 FROM DUAL WHERE FALSE');
"""

SIZE: Final = """SELECT COALESCE(SUM(data_length + index_length), 0) FROM information_schema.tables
 WHERE table_schema = DATABASE();"""


def dump_argv(spec: ClientSpec) -> tuple[str, ...]:
    """Print a client's database as one consistent picture."""
    return (
        "mariadb-dump", f"--defaults-file={mariadb.login_path(spec)}", "--protocol=socket", "--single-transaction",
        "--no-tablespaces", "--routines", "--triggers", "--events", "--hex-blob", "--default-character-set=utf8mb4",
        MAX_PACKET, spec.database,
    )  # fmt: skip


def stream_argv(spec: ClientSpec) -> tuple[str, ...]:
    """The same, not compressed."""
    return dump_argv(spec)


def load_argv(spec: ClientSpec) -> tuple[str, ...]:
    """Run a dump's SQL in the client's database; rows stay out of the log where one is refused."""
    return (*mariadb.client_argv(spec), "--binary-mode", "--comments", MAX_PACKET)


def ask(spec: ClientSpec, sql: str, timeout_s: float) -> Command:
    """Run SQL of ours by the client's own login."""
    return mariadb.mariadb_as_client(spec, sql, log=False, timeout_s=timeout_s)


def empty(spec: ClientSpec) -> Command:
    """The client's database is as new."""
    return mariadb.empty_database(spec)


def table_of(header: str) -> str | None:
    """The table that a dump's line is about."""
    found = HEADER.match(header)
    return found and found[1].replace("``", "`")
