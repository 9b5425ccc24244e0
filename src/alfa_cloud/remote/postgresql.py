"""PostgreSQL on a server: its administrator's commands. SQL goes by standard input, passwords only as verifiers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from typing import Any, Final

from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.specs import ClientSpec, Secret

CLIENTS: Final = "alfa_clients"
"""The role that every client's role is a member of: `pg_hba.conf` has one line for it."""

ITERATIONS: Final = 4096
"""PostgreSQL's own number for SCRAM-SHA-256 (scram_iterations)."""

PORT: Final = 5432

EVERY_ADDRESS: Final = frozenset({"*", "0.0.0.0"})  # noqa: S104  compared, not bound

SCRIPT_ERROR: Final = 3
"""psql(1), EXIT STATUS: an error in the SQL under ON_ERROR_STOP; a connection that fails or ends is 2."""

HBA_MARK: Final = "# alfa-cloud"

# Puts our lines at the top of pg_hba.conf, where the first match decides; all else stays as it is.
HBA_WRITE: Final = """
set -eu
file=$1 lines=$2 mark=$3
new=$(mktemp -- "$file.XXXXXX")
trap 'rm -f -- "$new"' EXIT
{ printf '%s\\n' "$lines"; grep -vF -- "$mark" "$file" || true; } >"$new"
chown --reference="$file" -- "$new"
chmod --reference="$file" -- "$new"
sync -- "$new"
mv -f -- "$new" "$file"
trap - EXIT
"""


def psql(sql: str, *, database: str = "postgres", log: bool = True, timeout_s: float = 60) -> Command:
    """Run SQL as the administrator; it stops at the first error, with exit status 3.

    `psql` runs `\\!` from what it reads, and ends with 0 after errors unless told otherwise: all of that is set here.
    """
    argv = (
        "runuser", "-u", "postgres", "--", "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
        "--set=ON_ERROR_STOP=1", f"--dbname={database}",
    )  # fmt: skip
    return Command(argv, stdin=sql.encode(), sudo=True, log=log, timeout_s=timeout_s)


def psql_as_client(spec: ClientSpec, sql: str, *, log: bool = True, timeout_s: float = 60) -> Command:
    """Run SQL with the client's own login: what the client made runs as the client."""
    program = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password")
    argv = client_argv(spec, *program, "--set=ON_ERROR_STOP=1", statement_s=timeout_s / 2)
    return Command(argv, stdin=sql.encode(), sudo=True, log=log, timeout_s=timeout_s)


def client_argv(spec: ClientSpec, *program: str, statement_s: float = 0) -> tuple[str, ...]:
    """A program of PostgreSQL with the client's own login, whose password is in its file.

    What a role may set for its own sessions is set here again, where it could change how the SQL is read or stop it.

    Args:
        statement_s: how long one statement may take; 0 is without end.
    """
    return (
        "env", f"PGPASSFILE={login_path(spec)}", "PGCLIENTENCODING=UTF8", "PGCONNECT_TIMEOUT=15",
        f"PGOPTIONS=-c statement_timeout={statement_s:g}s -c default_transaction_read_only=off", *program,
        f"--host={spec.layout.database_host}", f"--port={spec.layout.database_port or PORT}",
        f"--username={spec.database_user}", f"--dbname={spec.database}",
    )  # fmt: skip


def login_path(spec: ClientSpec) -> str:
    """The file with the client's password; only root can read it."""
    return f"{spec.directory}/.pgpass"


def login_file(spec: ClientSpec, password: Secret) -> bytes:
    """What that file says (libpq, "The Password File").

    Raises:
        ValueError: the password has a line end.
    """
    user, word = (
        _line(text).replace("\\", "\\\\").replace(":", "\\:") for text in (spec.database_user, password.reveal())
    )
    return f"*:*:*:{user}:{word}\n".encode()


def logged_in(result: Result) -> bool:
    """Whether a command of `psql_as_client` got as far as its SQL."""
    return result.exit_status in (0, SCRIPT_ERROR)


def version() -> Command:
    """Print the server's version; fails where it does not answer."""
    return psql("SHOW server_version;", log=False, timeout_s=20)


def quote_ident(name: str) -> str:
    """A name for SQL text."""
    return '"' + _plain(name).replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """A string for SQL text, whatever `standard_conforming_strings` says."""
    return " E'" + _plain(value).replace("\\", "\\\\").replace("'", "''") + "'"


def _line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError("a line of a file holds no line end")
    return _plain(text)


def _plain(text: str) -> str:
    if "\0" in text:
        raise ValueError("PostgreSQL text holds no NUL")
    return text


def verifier(password: Secret, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL stores for a password (RFC 5803, as `pg_authid.rolpassword` has it)."""
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.reveal().encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    b64 = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{b64[0]}${b64[1]}:{b64[2]}"


def verifies(stored: str | None, password: Secret) -> bool:
    """Whether a stored verifier is this password's."""
    if not stored or not stored.startswith("SCRAM-SHA-256$"):
        return False
    iterations, _, salt = stored.removeprefix("SCRAM-SHA-256$").partition("$")[0].partition(":")
    return hmac.compare_digest(stored, verifier(password, base64.b64decode(salt), int(iterations)))


@dataclass(frozen=True, slots=True)
class Tenant:
    """What is there of a client's role and database."""

    role_uid: str | None
    """The mark on the role; None where there is no role, empty where it bears none."""
    password: str | None
    owner: str | None
    """The database's owner; None where there is no database."""
    open: bool | None
    """Whether any role may connect to it; None where there is no database."""


def inspect_tenant(spec: ClientSpec) -> Command:
    """Print what is there of a client, as JSON."""
    role, database = quote_literal(spec.database_user), quote_literal(spec.database)
    return psql(
        f"""SELECT json_build_object(
            'role_uid', (SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_authid
                          WHERE rolname = {role}),
            'password', (SELECT rolpassword FROM pg_authid WHERE rolname = {role}),
            'owner', (SELECT r.rolname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
                       WHERE d.datname = {database}),
            'open', (SELECT has_database_privilege('public', oid, 'CONNECT, TEMPORARY') FROM pg_database
                      WHERE datname = {database}));""",
        log=False,
    )


def parse_tenant(text: str) -> Tenant:
    """The answer of `inspect_tenant`."""
    return Tenant(**json.loads(text))


def create_tenant(spec: ClientSpec, password: Secret) -> Command:
    """The client's role, with its mark and password, and its database are there."""
    role = quote_ident(spec.database_user)
    stored = quote_literal(verifier(password))
    return psql(
        f"""{_alone(spec)}
        BEGIN;
        SELECT 'CREATE ROLE {role} IN ROLE {CLIENTS}'
         WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {quote_literal(spec.database_user)}) \\gexec
        ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD {stored};
        COMMENT ON ROLE {role} IS {quote_literal(spec.uid)};
        COMMIT;
        {_create_database(spec)}""",
        log=True,
    )


def _alone(spec: ClientSpec) -> str:
    """To the end of its session: what a lost connection left may still be running, and would make the same.

    The lock is one of the administrator's database, which no client is let into.
    """
    return f"DO $$ BEGIN PERFORM pg_advisory_lock(hashtext({quote_literal(spec.database)})); END $$;"


def _create_database(spec: ClientSpec) -> str:
    role, database = quote_ident(spec.database_user), quote_ident(spec.database)
    return f"""SELECT 'CREATE DATABASE {database} OWNER {role} ENCODING ''UTF8'' TEMPLATE template0'
         WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = {quote_literal(spec.database)}) \\gexec
        REVOKE ALL ON DATABASE {database} FROM PUBLIC;
        """


def empty_database(spec: ClientSpec) -> Command:
    """The client's database is as new; nothing that the client made is run, and nothing of it is left.

    That is more than schemas: large objects, extensions, settings. Who is connected to it is cut off.
    """
    drop = f"DROP DATABASE IF EXISTS {quote_ident(spec.database)} WITH (FORCE);"
    return psql(f"{_alone(spec)}\n{drop}\n{_create_database(spec)}")


def drop_tenant(spec: ClientSpec) -> Command:
    """The client's database and role are gone; look first whether they are this client's."""
    role, database = quote_ident(spec.database_user), quote_ident(spec.database)
    drop = f"DROP DATABASE IF EXISTS {database} WITH (FORCE);\nDROP ROLE IF EXISTS {role};"
    return psql(f"{_alone(spec)}\n{drop}", timeout_s=300)


def read_settings(spec: ClientSpec) -> Command:
    """Print `cloud_settings` as a JSON object; fails where the table is not there."""
    sql = "SELECT coalesce(json_object_agg(name, value), '{}'::json) FROM cloud_settings;"
    return psql_as_client(spec, sql, log=False)


def write_settings(spec: ClientSpec, values: dict[str, str | None]) -> Command:
    """`cloud_settings` is there, belongs to the client, and has these values."""
    rows = ", ".join(
        f"({quote_literal(name)}, {'NULL' if value is None else quote_literal(value)})"
        for name, value in values.items()
    )
    return psql_as_client(
        spec,
        f"""BEGIN;
        CREATE TABLE IF NOT EXISTS cloud_settings (name varchar(64) PRIMARY KEY, value text);
        INSERT INTO cloud_settings (name, value) VALUES {rows}
            ON CONFLICT (name) DO UPDATE SET value = excluded.value;
        COMMIT;""",
    )


def hba_lines(subnet: str) -> str:
    """The lines that let the clients' roles in, each to its own database only.

    They come from the containers' network; and from the server itself, where this service logs in as a client: Docker
    masquerades what the server sends to the containers' address, so it comes from any of the server's own.
    """
    return "\n".join(f"host sameuser +{CLIENTS} {place} scram-sha-256 {HBA_MARK}" for place in (subnet, "samehost"))


def inspect_listening() -> Command:
    """Print, as JSON, where PostgreSQL listens and who may log in from where."""
    return psql(
        f"""SELECT json_build_object(
            'listen', current_setting('listen_addresses'), 'hba_file', current_setting('hba_file'),
            'role', EXISTS (SELECT FROM pg_roles WHERE rolname = '{CLIENTS}'),
            'rule', (SELECT coalesce(bool_or(address = 'samehost') AND bool_or(address <> 'samehost'), false)
                       FROM pg_hba_file_rules WHERE '+{CLIENTS}' = ANY (user_name)
                        AND 'sameuser' = ANY (database) AND error IS NULL));""",
        log=False,
    )


def create_group() -> Command:
    """The role of all clients is there."""
    return psql(
        f"""SELECT 'CREATE ROLE {CLIENTS} NOLOGIN'
             WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{CLIENTS}') \\gexec"""
    )


def write_hba(path: str, subnet: str) -> Command:
    """`pg_hba.conf` has our lines on top."""
    return Command(("sh", "-c", HBA_WRITE, "alfa-hba", path, hba_lines(subnet), HBA_MARK), sudo=True)


def listens(listen_addresses: str, address: str) -> bool:
    """Whether this setting lets in connections to an address."""
    found = _addresses(listen_addresses)
    return bool(found & EVERY_ADDRESS) or address in found or (address == "127.0.0.1" and "localhost" in found)


def reachable(found: dict[str, Any], address: str) -> bool:
    """Whether what `inspect_listening` found lets the clients' roles in at an address."""
    return bool(found["role"] and found["rule"] and listens(str(found["listen"]), address))


def merge_addresses(listen_addresses: str, address: str) -> str:
    """The setting with an address more; what was there stays."""
    found = [part.strip() for part in listen_addresses.split(",") if part.strip()]
    return ", ".join(found if listens(listen_addresses, address) else [*found, address])


def _addresses(listen_addresses: str) -> set[str]:
    return {part.strip() for part in listen_addresses.split(",")}


def reload() -> Command:
    """The rules of `pg_hba.conf` count."""
    return psql("SELECT pg_reload_conf();", log=False)


def listen_on(addresses: str) -> Command:
    """PostgreSQL listens on these addresses after its next restart."""
    return psql(f"ALTER SYSTEM SET listen_addresses = {quote_literal(addresses)};")
