"""The clients' application: its own commands, as the app profile says."""

from __future__ import annotations

import json
from typing import Final

from alfa_cloud.remote import compose, docker
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec, Secret

MIGRATION: Final = "migrate"
"""The name of an operation's detached migration."""
HEALTH_S: Final = 5.0
"""How long one answer of the health path may take."""

# Of /proc/net/tcp (proc(5)): the other end's address and port in hexadecimal, then the state; 01 is established, 04, 05
# and 08 are half closed.
CONNECTIONS: Final = 'cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -cE "$1"; exit 0'


def health(spec: ClientSpec, *, within_s: float = HEALTH_S) -> Command:
    """Print the HTTP status of the app's health path, asked on the server itself; 000 where nothing answers."""
    return _ask(f"http://127.0.0.1:{spec.port}{spec.app.health_path}", within_s)


def front(spec: ClientSpec, *, secure: bool) -> Command:
    """Print the HTTP status that the server's nginx gives a visitor of the client; 000 where nothing answers."""
    scheme, port = ("https", spec.layout.https_port) if secure else ("http", spec.layout.http_port)
    return _ask(
        f"{scheme}://{spec.domain}:{port}/", HEALTH_S, "--insecure", "--resolve", f"{spec.domain}:{port}:127.0.0.1"
    )


def _ask(url: str, within_s: float, *options: str) -> Command:
    argv = (
        "curl", "--silent", "--output", "/dev/null", "--max-time", f"{within_s:g}", "--noproxy", "*",
        "--write-out", "%{http_code}", *options, url,
    )  # fmt: skip
    return Command(argv, timeout_s=within_s + 10, log=False)


def connections_to(port: int) -> Command:
    """Print how many connections to a port are open on the server, seen from the end that made them."""
    pattern = f":{port:04X} 0[1458] "
    return Command(("sh", "-c", CONNECTIONS, "alfa-connections", pattern), log=False, timeout_s=20)


def parse_count(text: str) -> int:
    """The number that `connections_to` printed."""
    return int(text.strip() or 0)


def migrate(spec: ClientSpec) -> Command:
    """The client's database has the tables of its version; started once in an operation."""
    return docker.execute(spec.container, spec.app.migrate, timeout_s=spec.app.migrate_deadline_s, detached=MIGRATION)


def migrate_alone(spec: ClientSpec) -> Command:
    """The same, in a container of its own, while the client's does not run; started once in an operation."""
    return compose.run_alone(spec, spec.app.migrate, timeout_s=spec.app.migrate_deadline_s, detached=MIGRATION)


def set_owner_password(spec: ClientSpec, password: Secret) -> Command:
    """The laboratory's administrator has this password; it goes by standard input."""
    argv = tuple(part.replace("{login}", spec.owner_login) for part in spec.app.owner)
    return docker.execute(
        spec.container, argv, stdin=password.reveal().encode() + b"\n", timeout_s=120, detached="owner_password"
    )


def scrub(spec: ClientSpec) -> Command:
    """Personal data is taken out of a copy; started once in an operation."""
    return docker.execute(spec.container, spec.app.scrub, timeout_s=spec.app.scrub_deadline_s, detached="scrub")


def parse_settings(text: str) -> dict[str, str | None]:
    """The JSON object that a database's `read_settings` printed; empty where it is none, for the client made it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: setting if setting is None else str(setting) for name, setting in value.items()}
