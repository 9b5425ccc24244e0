"""What a server must have, how it is found, and the line that mends what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import certbot, docker, mariadb, nginx, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host, Result
from alfa_cloud.remote.output import plain_text
from alfa_cloud.specs import DatabaseEngine, Layout, Tls

LAYOUT_FILE: Final = ".alfa.json"
"""In the login's home: where things are on this server, if not where they are by default."""

MIN_FREE_BYTES: Final = 2_000_000_000


def find_version(result: Result) -> str:
    """The first version number in what a program printed on either stream, or an empty string."""
    match = re.search(rb"\d+(?:\.\d+)+", result.stdout + b"\n" + result.stderr)
    return match[0].decode() if match else ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something a server must have.

    Args:
        minimum: the least version, as numbers; empty where any will do.
        mend: the line for the server's shell.
    """

    name: str
    command: Command
    mend: str
    minimum: tuple[int, ...] = ()
    parse: Callable[[Result], str] = find_version


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one requirement found."""

    name: str
    ok: bool
    found: str
    needed: str
    mend: str


def docker_version(result: Result) -> str:
    """The engine's version; empty where only the client is there."""
    try:
        server = json.loads(result.stdout).get("Server") or {}
    except (ValueError, AttributeError):
        return ""
    return str(server.get("Version", ""))


def whole_output(result: Result) -> str:
    """The first line of standard output."""
    return result.text.strip().partition("\n")[0][:100]


SUDO: Final = Requirement(
    "sudo",
    Command(("id", "--user", "--name"), sudo=True, log=False, timeout_s=20),
    "echo 'www-data ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/www-data",
    parse=whole_output,
)
FLOCK: Final = Requirement(
    "flock", Command(("flock", "--version"), log=False, timeout_s=20), "apt-get install util-linux"
)
CURL: Final = Requirement("curl", Command(("curl", "--version"), log=False, timeout_s=20), "apt-get install curl")
DOCKER: Final = Requirement("docker", docker.version(), "apt-get install docker.io", (20, 10), docker_version)
COMPOSE: Final = Requirement("docker compose", docker.compose_version(), "apt-get install docker-compose", (2,))
NGINX: Final = Requirement("nginx", nginx.version(), "apt-get install nginx-light", (1, 18))
CERTBOT: Final = Requirement("certbot", certbot.version(), "apt-get install certbot", (1,))
DATABASES: Final = {
    DatabaseEngine.MARIADB: Requirement("mariadb", mariadb.version(), "apt-get install mariadb-server", (10, 5)),
    DatabaseEngine.POSTGRESQL: Requirement("postgresql", postgresql.version(), "apt-get install postgresql", (13,)),
}


def requirements(engine: DatabaseEngine, tls: Tls) -> list[Requirement]:
    """What a server with this database system and these certificates needs, in the order of mending."""
    rows = [SUDO, FLOCK, CURL, DOCKER, COMPOSE, NGINX, DATABASES[engine]]
    return [*rows, CERTBOT] if tls is Tls.CERTBOT else rows


async def check(host: Host, engine: DatabaseEngine, tls: Tls) -> list[Finding]:
    """Look for every requirement; a missing one is a finding, not an error.

    Raises:
        RemoteError: the server could not be asked.
    """
    return [await look(host, row) for row in requirements(engine, tls)]


async def look(host: Host, requirement: Requirement) -> Finding:
    """Look for one requirement."""
    result = await host.run(requirement.command, check=False)
    found = plain_text(requirement.parse(result).encode()) if result.ok else ""
    enough = result.ok and (not requirement.minimum or numbers(found) >= requirement.minimum)
    needed = ".".join(map(str, requirement.minimum))
    return Finding(requirement.name, enough, found, f"≥ {needed}" if needed else "", "" if enough else requirement.mend)


def numbers(version: str) -> tuple[int, ...]:
    """A version's leading numbers: `26.1.5+dfsg1` is (26, 1, 5)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def read_layout_file() -> Command:
    """Print the server's own word on where things are; fails where it has none."""
    return Command(("cat", LAYOUT_FILE), log=False, timeout_s=20)


async def read_layout(host: Host) -> Layout:
    """Where things are on a server.

    Raises:
        RemoteError: the server could not be asked, or its file is no JSON object, or says something impossible.
    """
    result = await host.run(read_layout_file(), check=False)
    if not result.ok:
        return Layout()
    try:
        raw = json.loads(result.stdout)
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"{LAYOUT_FILE} in the login's home on the server is not JSON.") from error
    if not isinstance(raw, dict):
        raise RemoteError(f"{LAYOUT_FILE} in the login's home on the server is not a JSON object.")
    try:
        return Layout.parse(raw)
    except ValueError as error:
        raise RemoteError(f"{LAYOUT_FILE} in the login's home on the server: {error}") from error


def free_space(path: str) -> Command:
    """Print the free bytes of the file system that holds a path."""
    return Command(("df", "--block-size=1", "--output=avail", "--", path), log=False, timeout_s=20)


def parse_free_bytes(text: str) -> int:
    """The number below `df`'s heading."""
    return int(text.rsplit(maxsplit=1)[-1])


def listening_ports() -> Command:
    """Print the kernel's tables of TCP sockets."""
    return Command(("cat", "/proc/net/tcp", "/proc/net/tcp6"), log=False, timeout_s=20)


LISTEN: Final = "0A"
"""TCP_LISTEN in /proc/net/tcp (proc(5))."""


def parse_listening_ports(text: str) -> set[int]:
    """The ports that something listens on."""
    rows = (line.split() for line in text.splitlines())
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == LISTEN}


def parse_json(result: Result) -> dict[str, Any]:
    """The JSON object that a command printed.

    Raises:
        RemoteError: it printed something else.
    """
    try:
        value = json.loads(result.stdout)
    except ValueError as error:
        raise RemoteError("The server answered something that is not JSON.") from error
    if not isinstance(value, dict):
        raise RemoteError("The server answered something that is not a JSON object.")
    return value
