"""MariaDB on a server: its administrator's commands. SQL goes by standard input, passwords only as hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec, Secret

CONFIG_PATH: Final = "/etc/mysql/mariadb.conf.d/90-alfa-cloud.cnf"
"""Debian's folder for an administrator's own settings, read last."""


def mariadb(sql: str, *, database: str = "", log: bool = True, timeout_s: float = 60) -> Command:
    """Run SQL as `root` over the server's own socket; it stops at the first error.

    `--sandbox` forbids `\\!` and `system`, which the client would run from SQL that it reads.
    """
    argv: tuple[str, ...] = (
        "mariadb", "--no-defaults", "--batch", "--raw", "--skip-column-names", "--sandbox",
        "--default-character-set=utf8mb4", "--user=root",
    )  # fmt: skip
    if database:
        argv = (*argv, f"--database={database}")
    return Command(argv, stdin=sql.encode(), sudo=True, log=log, timeout_s=timeout_s)


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
    """The user's stored hash; None where there is no user."""
    granted: bool


def inspect_tenant(spec: ClientSpec) -> Command:
    """Print what is there of a client, as JSON."""
    _, host, schema = _names(spec)
    return mariadb(
        f"""SELECT JSON_OBJECT(
            'uid', (SELECT schema_comment FROM information_schema.schemata WHERE schema_name = '{spec.database}'),
            'password', (SELECT authentication_string FROM mysql.user
                          WHERE user = '{spec.database_user}' AND host = '{host}'),
            'granted', EXISTS (SELECT 1 FROM mysql.db WHERE user = '{spec.database_user}' AND host = '{host}'
                                AND db = '{schema}' AND create_priv = 'Y'));""",
        log=False,
    )


def parse_tenant(text: str) -> Tenant:
    """The answer of `inspect_tenant`."""
    raw = json.loads(text)
    return Tenant(raw["uid"], raw["password"], bool(raw["granted"]))


def _names(spec: ClientSpec) -> tuple[str, str, str]:
    """User, host and the database's name as a pattern of GRANT; all are ours, of `[a-z0-9_./]`."""
    host = host_pattern(spec.layout.docker_subnet)
    return f"'{spec.database_user}'@'{host}'", host, spec.database.replace("_", r"\\_")


def create_tenant(spec: ClientSpec, password: Secret) -> Command:
    """The client's database, with its mark, and its user are there."""
    user, _, _ = _names(spec)
    pattern = spec.database.replace("_", r"\_")
    return mariadb(
        f"""CREATE DATABASE IF NOT EXISTS {quote_ident(spec.database)}
            CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci COMMENT '{spec.uid}';
        CREATE USER IF NOT EXISTS {user} IDENTIFIED BY PASSWORD '{native_hash(password)}';
        ALTER USER {user} IDENTIFIED BY PASSWORD '{native_hash(password)}';
        GRANT ALL PRIVILEGES ON {quote_ident(pattern)}.* TO {user};"""
    )


def drop_tenant(spec: ClientSpec) -> Command:
    """The client's database and user are gone; look first whether they are this client's."""
    user, _, _ = _names(spec)
    return mariadb(f"DROP DATABASE IF EXISTS {quote_ident(spec.database)};\nDROP USER IF EXISTS {user};", timeout_s=300)


def read_settings(spec: ClientSpec) -> Command:
    """Print `cloud_settings` as a JSON object; fails where the table is not there."""
    return mariadb(
        "SELECT COALESCE(JSON_OBJECTAGG(name, value), '{}') FROM cloud_settings;", database=spec.database, log=False
    )


def write_settings(spec: ClientSpec, values: dict[str, str | None]) -> Command:
    """`cloud_settings` is there and has these values."""
    rows = ", ".join(
        f"({quote_literal(name)}, {'NULL' if value is None else quote_literal(value)})"
        for name, value in values.items()
    )
    return mariadb(
        f"""CREATE TABLE IF NOT EXISTS cloud_settings (name varchar(64) PRIMARY KEY, value text);
        INSERT INTO cloud_settings (name, value) VALUES {rows} ON DUPLICATE KEY UPDATE value = VALUES(value);""",
        database=spec.database,
    )


def config(address: str) -> bytes:
    """The settings that let the containers' network in."""
    return f"# alfa-cloud\n[mariadbd]\nbind-address = 127.0.0.1,{address}\nskip-name-resolve\n".encode()


def inspect_listening() -> Command:
    """Print where MariaDB listens."""
    return mariadb("SELECT @@global.bind_address;", log=False)
