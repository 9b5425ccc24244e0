"""What a server must have, how it is found, and the line that mends what is missing."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final

from alfa_cloud.errors import RemoteError
from alfa_cloud.remote import certbot, docker, mariadb, nginx, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host, Result
from alfa_cloud.remote.output import plain_text
from alfa_cloud.specs import DatabaseEngine, Layout, Tls

LAYOUT_FILE: Final = ".alfa.json"
"""In the login's home: where things are on this server, if not where they are by default."""

MOST_CLOCK_OFFSET_S: Final = 60
"""How far a server's clock may be from ours."""


def find_version(result: Result) -> str:
    """The first version number in what a program printed on either stream, or an empty string."""
    match = re.search(rb"\d+(?:\.\d+)+", result.stdout + b"\n" + result.stderr)
    return match[0].decode() if match else ""


def whole_output(result: Result) -> str:
    """The first line of standard output."""
    return result.text.strip().partition("\n")[0][:100]


def ended_well(result: Result) -> bool:
    """Whether the exit status is 0."""
    return result.ok


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something a server must have.

    Args:
        mend: the line for the server's shell, as root.
        minimum: the least version, as numbers; empty where any will do.
        parse: what was found, in words, where the command ended well.
        holds: whether that is as it must be, beside the version.
        needed: what must be found, in words; a version's is made of `minimum`.
        required: whether clients need it; what is not required is advice.
    """

    name: str
    command: Command
    mend: str
    minimum: tuple[int, ...] = ()
    parse: Callable[[Result], str] = find_version
    holds: Callable[[Result], bool] = ended_well
    needed: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one requirement found."""

    name: str
    ok: bool
    found: str
    needed: str
    mend: str
    required: bool = True


def all_met(findings: Iterable[Finding]) -> bool:
    """Whether clients find what they need; advice does not count."""
    return all(row.ok for row in findings if row.required)


def docker_version(result: Result) -> str:
    """The engine's version; empty where only the client is there."""
    try:
        server = json.loads(result.stdout).get("Server") or {}
    except (ValueError, AttributeError):
        return ""
    return str(server.get("Version", ""))


def _look_at(*argv: str, sudo: bool = False) -> Command:
    return Command(argv, sudo=sudo, log=False, timeout_s=20)


SHELL: Final = Requirement(
    "login shell", _look_at("true"), "usermod --shell /bin/bash www-data", parse=lambda _: "", needed="runs commands"
)
"""Debian's www-data has none: then nothing else can be asked."""
SUDO: Final = Requirement(
    "sudo",
    _look_at("id", "--user", "--name", sudo=True),
    "echo 'www-data ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/www-data",
    parse=whole_output,
    needed="root, without a password",
)
FLOCK: Final = Requirement("flock", _look_at("flock", "--version"), "apt-get install util-linux")
CURL: Final = Requirement("curl", _look_at("curl", "--version"), "apt-get install curl")
DOCKER: Final = Requirement("docker", docker.version(), "apt-get install docker.io", (20, 10), docker_version)
COMPOSE: Final = Requirement("docker compose", docker.compose_version(), "apt-get install docker-compose", (2,))
NGINX: Final = Requirement("nginx", nginx.version(), "apt-get install nginx", (1, 18))
CERTBOT: Final = Requirement("certbot", certbot.version(), "apt-get install certbot", (1,))
DATABASES: Final = {
    DatabaseEngine.MARIADB: Requirement("mariadb", mariadb.version(), "apt-get install mariadb-server", (10, 5)),
    DatabaseEngine.POSTGRESQL: Requirement("postgresql", postgresql.version(), "apt-get install postgresql", (13,)),
}
ZSTD: Final = Requirement("zstd", _look_at("zstd", "--version"), "apt-get install zstd")
"""Packs dumps and files."""
GIT: Final = Requirement(
    "git", _look_at("git", "--version"), "apt-get install git", needed="where images are built", required=False
)


def programs(engine: DatabaseEngine, tls: Tls) -> list[Requirement]:
    """The programs that clients on a server need, in the order of mending."""
    rows = [SHELL, SUDO, FLOCK, CURL, DOCKER, COMPOSE, NGINX, DATABASES[engine], ZSTD, GIT]
    return [*rows, CERTBOT] if tls is Tls.CERTBOT else rows


async def check(host: Host, engine: DatabaseEngine, tls: Tls) -> list[Finding]:
    """Look for every program; a missing one is a finding, not an error.

    Raises:
        RemoteError: the server could not be asked.
    """
    return await _look_for(host, programs(engine, tls))


async def check_all(host: Host, engine: DatabaseEngine, tls: Tls, min_free_bytes: int) -> list[Finding]:
    """Look for every program, and whether all is set up for clients.

    Raises:
        RemoteError: the server could not be asked.
    """
    return await _look_for(host, [*programs(engine, tls), *arrangements(host.layout, engine, min_free_bytes)])


async def _look_for(host: Host, rows: Sequence[Requirement]) -> list[Finding]:
    shell = await look_at_shell(host)
    if not shell.ok:
        return [shell]
    return [shell, *await asyncio.gather(*(look(host, row) for row in rows if row is not SHELL))]


async def look_at_shell(host: Host) -> Finding:
    """Look whether the login runs commands; on a new connection, where the one that stands says no."""
    found = await look(host, SHELL)
    if not found.ok:
        await host.log_in_anew()
        found = await look(host, SHELL)
    return found


async def look(host: Host, requirement: Requirement) -> Finding:
    """Look for one requirement."""
    result = await host.run(requirement.command, check=False)
    found = plain_text(requirement.parse(result).encode()) if result.ok else ""
    enough = result.ok and (not requirement.minimum or numbers(found) >= requirement.minimum)
    enough = enough and requirement.holds(result)
    least = ".".join(map(str, requirement.minimum))
    needed = requirement.needed or (f"≥ {least}" if least else "")
    return Finding(requirement.name, enough, found, needed, "" if enough else requirement.mend, requirement.required)


def arrangements(layout: Layout, engine: DatabaseEngine, min_free_bytes: int) -> list[Requirement]:
    """What must be set up on a server, in the order of mending."""
    rows = [NGINX_GOOD, network(layout), database_address(layout, engine), disk(layout, min_free_bytes)]
    if not ip_address(layout.database_host).is_loopback:
        rows.insert(2, NONLOCAL_BIND)
    return [*rows, CLOCK, HOME, KEYS, PUBLISHED]


NGINX_GOOD: Final = Requirement(
    "nginx configuration", nginx.test().quiet(), "nginx -t  # and mend the file that it names", parse=lambda _: "good",
    needed="good",
)  # fmt: skip
NONLOCAL_BIND: Final = Requirement(
    "ip_nonlocal_bind",
    _look_at("cat", "/proc/sys/net/ipv4/ip_nonlocal_bind"),
    "sysctl --write net.ipv4.ip_nonlocal_bind=1 | tee /etc/sysctl.d/90-alfa-cloud.conf",
    parse=whole_output,
    holds=lambda result: whole_output(result) == "1",
    needed="1",
)
CLOCK: Final = Requirement(
    "clock",
    _look_at("date", "+%s"),
    "apt-get install systemd-timesyncd",
    parse=lambda result: f"{clock_offset_s(result):+d} s",
    holds=lambda result: abs(clock_offset_s(result)) <= MOST_CLOCK_OFFSET_S,
    needed=f"within {MOST_CLOCK_OFFSET_S} s of ours",
    required=False,
)
HOME: Final = Requirement(
    "home folder",
    _look_at("sh", "-c", 'test -d "$HOME"'),
    "install -d -m 755 /var/www",
    parse=lambda _: "",
    needed="is there",
    required=False,
)
# A container's process may bear www-data's number (33): it must not be able to let itself in, should it ever get out.
OWN_KEYS: Final = """
[ "$(id -u)" = 33 ] || exit 0
for path in "$HOME/.ssh" "$HOME/.ssh/authorized_keys"; do
  if [ -e "$path" ] && { [ -O "$path" ] || [ -w "$path" ]; }; then printf '%s ' "$path"; fi
done
exit 0
"""
KEYS: Final = Requirement(
    "authorized_keys",
    _look_at("sh", "-c", OWN_KEYS),
    "chown -R root:root ~www-data/.ssh && chmod 755 ~www-data/.ssh && chmod 644 ~www-data/.ssh/authorized_keys",
    parse=lambda result: f"www-data can change: {whole_output(result)}" if whole_output(result) else "",
    holds=lambda result: not whole_output(result),
    needed="nothing of it is www-data's own",
    required=False,
)
PUBLISHED: Final = Requirement(
    "published ports",
    docker.list_running(),
    "docker container ls  # publish these ports on 127.0.0.1 only",
    parse=lambda result: ", ".join(published(result)),
    holds=lambda result: not published(result),
    needed="on 127.0.0.1 only",
    required=False,
)


def network(layout: Layout) -> Requirement:
    """The containers' own network, in which they do not reach each other."""
    gateway = str(ip_network(layout.docker_subnet)[1])
    create = docker.create_network(layout.docker_network, layout.docker_subnet, gateway)
    return Requirement(
        "docker network",
        docker.inspect_network(layout.docker_network),
        f"docker network rm {layout.docker_network}; {create}",
        parse=lambda result: ", ".join(subnets(result)),
        holds=lambda result: subnets(result) == [layout.docker_subnet],
        needed=f"{layout.docker_network}, {layout.docker_subnet}",
    )


def database_address(layout: Layout, engine: DatabaseEngine) -> Requirement:
    """The database listens where containers reach it, and lets them in."""
    host = layout.database_host
    if engine is DatabaseEngine.MARIADB:
        return Requirement(
            "mariadb for containers",
            mariadb.inspect_listening(),
            f"printf '[mariadbd]\\nbind-address = 127.0.0.1,{host}\\nskip-name-resolve\\n' > {mariadb.CONFIG_PATH} "
            "&& service mariadb restart",
            parse=whole_output,
            holds=lambda result: host in whole_output(result).split(","),
            needed=f"listens on {host}",
        )
    lines = postgresql.hba_lines(layout.docker_subnet).replace("\n", "\\n")
    return Requirement(
        "postgresql for containers",
        postgresql.inspect_listening(),
        f"runuser -u postgres -- psql -c 'CREATE ROLE {postgresql.CLIENTS}' "
        f"-c \"ALTER SYSTEM SET listen_addresses = 'localhost, {host}'\"; "
        f"sed -i '1i {lines}' /etc/postgresql/*/main/pg_hba.conf && service postgresql restart",
        parse=lambda result: str(parse_json(result).get("listen", "")),
        holds=lambda result: postgresql.reachable(parse_json(result), host),
        needed=f"listens on {host}, with a rule for {postgresql.CLIENTS}",
    )


def disk(layout: Layout, min_free_bytes: int) -> Requirement:
    """Room for clients."""
    return Requirement(
        "free disk space",
        free_space(layout.root),
        "docker image prune --all  # or a larger disk",
        parse=lambda result: f"{parse_free_bytes(result.text) / 1e9:.1f} GB",
        holds=lambda result: parse_free_bytes(result.text) >= min_free_bytes,
        needed=f"≥ {min_free_bytes / 1e9:.1f} GB",
    )


def clock_offset_s(result: Result) -> int:
    """How far ahead of ours a server's clock is."""
    return int(result.text) - round(time.time())


def subnets(result: Result) -> list[str]:
    """The subnets of a network in which containers do not reach each other; none of another network."""
    found = json.loads(result.stdout)[0]
    if (found.get("Options") or {}).get(docker.ICC) != "false":
        return []
    return [row.get("Subnet", "") for row in found["IPAM"].get("Config") or ()]


def published(result: Result) -> list[str]:
    """The containers that publish a port on every address."""
    rows = docker.parse_lines(result.text)
    return [str(row["Names"]) for row in rows if re.search(r"(?:0\.0\.0\.0|\[?::\]?):\d", str(row.get("Ports", "")))]


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


FREE_SPACE: Final = """
path=$1
while [ ! -e "$path" ]; do path=$(dirname -- "$path"); done
df --block-size=1 --output=avail -- "$path"
"""


def free_space(path: str) -> Command:
    """Print the free bytes of the file system that holds a path, or will hold it."""
    return Command(("sh", "-c", FREE_SPACE, "alfa-df", path), log=False, timeout_s=20)


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
