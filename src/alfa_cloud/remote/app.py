"""The clients' application: its own commands, as the app profile says."""

from __future__ import annotations

import json

from alfa_cloud.remote import docker
from alfa_cloud.remote.command import Command
from alfa_cloud.specs import ClientSpec, Secret


def health(spec: ClientSpec) -> Command:
    """Print the HTTP status of the app's health path, asked on the server itself; 000 where nothing answers."""
    argv = (
        "curl", "--silent", "--output", "/dev/null", "--max-time", "5", "--noproxy", "*", "--write-out", "%{http_code}",
        f"http://127.0.0.1:{spec.port}{spec.app.health_path}",
    )  # fmt: skip
    return Command(argv, timeout_s=15, log=False)


def migrate(spec: ClientSpec) -> Command:
    """The client's database has the tables of its version; started once in an operation."""
    return docker.execute(spec.container, spec.app.migrate, timeout_s=spec.app.migrate_deadline_s, detached="migrate")


def set_owner_password(spec: ClientSpec, password: Secret) -> Command:
    """The laboratory's administrator has this password; it goes by standard input."""
    argv = tuple(part.replace("{login}", spec.owner_login) for part in spec.app.owner)
    return docker.execute(
        spec.container, argv, stdin=password.reveal().encode() + b"\n", timeout_s=120, detached="owner_password"
    )


def parse_settings(text: str) -> dict[str, str | None]:
    """The JSON object that a database's `read_settings` printed; empty where it is none, for the client made it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: setting if setting is None else str(setting) for name, setting in value.items()}
