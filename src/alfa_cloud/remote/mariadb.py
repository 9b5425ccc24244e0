"""MariaDB on a server: its administrator's commands. SQL goes by standard input, passwords only as hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.specs import ClientSpec, Secret

OPTIONS: Final = (
    "--batch", "--raw", "--skip-column-names", "--sandbox", "--default-character-set=utf8mb4",
    "--loose-skip-print-query-on-error",
)  # fmt: skip
"""Without the last one a statement that fails is printed whole, with the hash of a password in it."""

LOGGED_IN: Final = "logged in"

LOCAL: Final = "localhost"
"""Where this service logs in as the client, over the socket, which no container sees. The containers' address will not
do: Docker masquerades what the server itself sends there."""

CONFIG_PATH: Final = "/etc/mysql/mariadb.conf.d/90-alfa-cloud.cnf"
"""Debian's folder for an administrator's own settings, read last."""


def mariadb(sql: str, *, log: bool = True, timeout_s: float = 60) -> Command:
    """Run SQL as `root` over the server's own socket; it stops at the first error.

    `--sandbox` forbids `\\!` and `system`, which the client would run from SQL that it reads.
    """
    argv = ("mariadb", "--no-defaults", *OPTIONS, "--user=root")
    return Command(argv, stdin=sql.encode(), sudo=True, log=log, timeout_s=timeout_s)


def mariadb_as_client(spec: ClientSpec, sql: str, *, log: bool = True, timeout_s: float = 60) -> Command:
    """Run SQL with the client's own login, which is in its file: what the client made runs as the client."""
    return Command(client_argv(spec), stdin=sql.encode(), sudo=True, log=log, timeout_s=timeout_s)


def client_argv(spec: ClientSpec) -> tuple[str, ...]:
    """The program that runs SQL with the client's own login."""
    return (
        "mariadb", f"--defaults-file={login_path(spec)}", *OPTIONS, "--protocol=socket", "--connect-timeout=15",
        f"--database={spec.database}",
    )  # fmt: skip


def login_path(spec: ClientSpec) -> str:
    """The file with the client's login; only root can read it."""
    return f"{spec.directory}/.my.cnf"


def login_file(spec: ClientSpec, password: Secret) -> bytes:
    """What that file says (MariaDB, "Configuring MariaDB with Option Files").

    Raises:
        ValueError: the password has a line end.
    """
    return f"[client]\nuser={_option(spec.database_user)}\npassword={_option(password.reveal())}\n".encode()


def _option(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ValueError("a line of a file holds no line end")
    return '"' + _plain(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def logged_in(result: Result) -> bool:
    """Whether `read_settings` got as far as the table; the program has one exit status for all its errors."""
    return result.ok or result.text.startswith(LOGGED_IN)


def version() -> Command:
    """Print the server's version; fails where it does not answer."""
    return mariadb("SELECT VERSION();", log=False, timeout_s=20)


def quote_ident(name: str) -> str:
    """A name for SQL text."""
    return "`" + _plain(name).replace("`", "``") + "`"


def quote_literal(value: str) -> str:
    """A string for SQL text, in hexadecimal: no sql_mode and no character set can read it in another way."""
    data = _plain(value).encode()
    return f"CONVERT(X'{data.hex()}' USING utf8mb4)" if data else "''"


def _plain(text: str) -> str:
    if "\0" in text:
        raise ValueError("a name or value holds no NUL")
    return text


def native_hash(password: Secret) -> str:
    """What MariaDB stores for a password (mysql_native_password)."""
    return "*" + hashlib.sha1(hashlib.sha1(password.reveal().encode()).digest()).hexdigest().upper()  # noqa: S324


def host_pattern(subnet: str) -> str:
    """The containers' network as a host name of MariaDB: ADDRESS/NETMASK."""
    return str(ip_network(subnet).with_netmask)


@dataclass(frozen=True, slots=True)
class Tenant:
    """What is there of a client's user and database."""

    uid: str | None
    """The mark on the database; None where there is no database, empty where it bears none."""
    password: str | None
    """The user's stored hash, for the containers' network; None where there is no user."""
    granted: bool
    local_password: str | None
    """The same for the server itself."""
    local_granted: bool

    @property
    def absent(self) -> bool:
        """Whether nothing of the client is there."""
        return self.uid is None and self.password is None and self.local_password is None

    def holds(self, password: Secret) -> bool:
        """Whether all is there, with this password."""
        stored = native_hash(password)
        granted = self.uid is not None and self.granted and self.local_granted
        return granted and self.password == stored and self.local_password == stored


def inspect_tenant(spec: ClientSpec) -> Command:
    """Print what is there of a client, as JSON."""
    host = host_pattern(spec.layout.docker_subnet)
    return mariadb(
        f"""SELECT JSON_OBJECT(
            'uid', (SELECT schema_comment FROM information_schema.schemata WHERE schema_name = '{spec.database}'),
            'password', {_stored(spec, host)}, 'granted', {_granted(spec, host)},
            'local_password', {_stored(spec, LOCAL)}, 'local_granted', {_granted(spec, LOCAL)});""",
        log=False,
    )


def _stored(spec: ClientSpec, host: str) -> str:
    return f"(SELECT authentication_string FROM mysql.user WHERE user = '{spec.database_user}' AND host = '{host}')"


def _granted(spec: ClientSpec, host: str) -> str:
    schema = spec.database.replace("_", r"\\_")
    return (
        f"EXISTS (SELECT 1 FROM mysql.db WHERE user = '{spec.database_user}' AND host = '{host}' "
        f"AND db = '{schema}' AND create_priv = 'Y')"
    )


def parse_tenant(text: str) -> Tenant:
    """The answer of `inspect_tenant`."""
    raw = json.loads(text)
    local = raw["local_password"], bool(raw["local_granted"])
    return Tenant(raw["uid"], raw["password"], bool(raw["granted"]), *local)


def _users(spec: ClientSpec) -> tuple[str, str]:
    """The client's user for the containers' network and for the server itself; all is ours, of `[a-z0-9_./]`."""
    return (
        f"'{spec.database_user}'@'{host_pattern(spec.layout.docker_subnet)}'",
        f"'{spec.database_user}'@'{LOCAL}'",
    )


def create_tenant(spec: ClientSpec, password: Secret) -> Command:
    """The client's database, with its mark, and its user are there."""
    users, pattern = _users(spec), spec.database.replace("_", r"\_")
    named = ", ".join(f"{user} IDENTIFIED BY PASSWORD '{native_hash(password)}'" for user in users)
    return mariadb(
        f"""{_alone(spec)}
        {_create_database(spec)}
        CREATE USER IF NOT EXISTS {named};
        ALTER USER {named};
        GRANT ALL PRIVILEGES ON {quote_ident(pattern)}.* TO {", ".join(users)};"""
    )


def _alone(spec: ClientSpec) -> str:
    """To the end of its session: what a lost connection left may still be running, and would make the same.

    Any user of the server may take any lock that he can name: this one's name is a secret of the client's own.
    """
    return f"DO GET_LOCK('{spec.uid}', 300);"


def _create_database(spec: ClientSpec) -> str:
    return (
        f"CREATE DATABASE IF NOT EXISTS {quote_ident(spec.database)} "
        f"CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci COMMENT '{spec.uid}';"
    )


def empty_database(spec: ClientSpec) -> Command:
    """The client's database is as new, its users and their rights stay; nothing that the client made is run.

    Who is connected as the client is cut off, and not waited for. No host is named: a connection bears the address that
    it comes from, which is never the network that the user is let in from. Until MariaDB's next start it takes
    statements as long as it can: a value that was stored in one must fit into one again, where a dump has it in
    hexadecimal.
    """
    return mariadb(
        f"{_alone(spec)}\nSET SESSION lock_wait_timeout = 600; SET GLOBAL max_allowed_packet = 1073741824;\n"
        f"KILL HARD CONNECTION USER '{spec.database_user}';\n"
        f"DROP DATABASE IF EXISTS {quote_ident(spec.database)};\n{_create_database(spec)}\n"
    )


def drop_tenant(spec: ClientSpec) -> Command:
    """The client's database and user are gone; look first whether they are this client's."""
    drop = f"DROP DATABASE IF EXISTS {quote_ident(spec.database)};\nDROP USER IF EXISTS {', '.join(_users(spec))};"
    return mariadb(f"{_alone(spec)}\n{drop}", timeout_s=300)


def read_settings(spec: ClientSpec) -> Command:
    """Print a line, then `cloud_settings` as a JSON object; fails after the line where the table is not there."""
    sql = f"SELECT '{LOGGED_IN}';\nSELECT COALESCE(JSON_OBJECTAGG(name, value), '{{}}') FROM cloud_settings;"
    return mariadb_as_client(spec, sql, log=False)


def write_settings(spec: ClientSpec, values: dict[str, str | None]) -> Command:
    """`cloud_settings` is there and has these values."""
    rows = ", ".join(
        f"({quote_literal(name)}, {'NULL' if value is None else quote_literal(value)})"
        for name, value in values.items()
    )
    return mariadb_as_client(
        spec,
        f"""CREATE TABLE IF NOT EXISTS cloud_settings (name varchar(64) PRIMARY KEY, value text);
        INSERT INTO cloud_settings (name, value) VALUES {rows} ON DUPLICATE KEY UPDATE value = VALUES(value);""",
    )


def config(address: str) -> bytes:
    """The settings that let the containers' network in."""
    return f"# alfa-cloud\n[mariadbd]\nbind-address = 127.0.0.1,{address}\nskip-name-resolve\n".encode()


def inspect_listening() -> Command:
    """Print where MariaDB listens."""
    return mariadb("SELECT @@global.bind_address;", log=False)
