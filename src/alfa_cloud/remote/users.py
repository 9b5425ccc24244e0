"""How many users each client of a server has: one command for all of them.

A client's tables are its own, and may be anything: each is asked by the client's own login, for a short time, and what
it answers is a number or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from alfa_cloud.remote import mariadb, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec, DatabaseEngine

CLIENT_S: Final = 5
AT_ONCE: Final = 4
COUNT_S: Final = 600
LINE: Final = re.compile(r"([0-9]{1,10}) ([0-9]{1,9})", re.ASCII)

# Items come by standard input: of each client its id, and the program that runs SQL as this client.
COUNT: Final = """
exec xargs --null --no-run-if-empty --max-args="$1" --max-procs="$2" sh -c '
sql=$1 seconds=$2 id=$3
shift 3
found=$(printf %s "$sql" | timeout --kill-after=1 "$seconds" "$@" 2>/dev/null | head -c 32)
case $found in "" | *[!0-9]*) ;; *) echo "$id $found" ;; esac
' alfa-count "$3" "$4"
"""


def count(specs: Sequence[ClientSpec]) -> Command:
    """Print the id and the number of users of each client that could be asked; all are of one server."""
    items = [(str(spec.id), *_argv(spec)) for spec in specs]
    data = b"".join(part.encode() + b"\0" for item in items for part in item)
    width = str(len(items[0]))
    argv = ("sh", "-c", COUNT, "alfa-count-users", width, str(AT_ONCE), _sql(specs[0]), str(CLIENT_S))
    return Command(argv, stdin=data, sudo=True, timeout_s=COUNT_S, log=False)


def _argv(spec: ClientSpec) -> tuple[str, ...]:
    if spec.engine is DatabaseEngine.MARIADB:
        return mariadb.client_argv(spec)
    program = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password")
    return postgresql.client_argv(spec, *program, "--set=ON_ERROR_STOP=1", statement_s=CLIENT_S)


def _sql(spec: ClientSpec) -> str:
    table = spec.app.users_table
    if spec.engine is DatabaseEngine.MARIADB:
        bounded = f"SET STATEMENT max_statement_time={CLIENT_S} FOR "
        return f"{bounded}SELECT count(*) FROM {mariadb.quote_ident(table)};"  # noqa: S608  quoted
    return f"SELECT count(*) FROM {postgresql.quote_ident(table)};"  # noqa: S608  quoted


def parse(text: str) -> dict[int, int]:
    """The users of each client that was counted, by the client's id."""
    return {int(found[1]): int(found[2]) for line in text.splitlines() if (found := LINE.fullmatch(line))}
