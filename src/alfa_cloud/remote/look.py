"""Bounded looks at a server, outside any operation: nothing is written anywhere, and a deadline ends them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from alfa_cloud.remote import docker, requirements
from alfa_cloud.remote.docker import Image
from alfa_cloud.remote.host import Host, LineSink
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.requirements import Finding
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import Address, DatabaseEngine, Layout, Stream, Tls

IMAGES_AT_ONCE: Final = 20
"""A description has up to some 20 KB, and a `Result` holds 1 MiB."""


class NoSink:
    """Where lines go that nobody keeps."""

    async def lines(self, stream: Stream, lines: Sequence[str], checkpoint: tuple[str, int] | None = None) -> None:
        """Nothing."""

    def checkpoint(self, name: str) -> int:
        """0: nothing is kept."""
        return 0

    async def note(self, text: str, /) -> None:
        """Nothing."""

    async def warn(self, text: str, /) -> None:
        """Nothing."""

    async def report(self, **facts: Any) -> None:
        """Nothing."""

    @property
    def facts(self) -> dict[str, Any]:
        """None."""
        return {}


class Facts(NoSink):
    """Keeps the facts that a look reports, and drops all else."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    @property
    def facts(self) -> dict[str, Any]:
        """What was reported."""
        return self.found

    async def report(self, **facts: Any) -> None:
        """Keep them."""
        self.found |= facts


def host_to_look_at(pool: SshPool, address: Address, layout: Layout, sink: LineSink | None = None) -> SshHost:
    """A host for looking only."""
    return SshHost(
        pool, address, layout, sink=sink or NoSink(), operation_dir=layout.operation_dir("look"), fence=0,
        masker=Masker(), guard=lambda: None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What is found on a server that is to be registered."""

    layout: Layout
    findings: tuple[Finding, ...]
    images: tuple[Image, ...]


async def first_look(pool: SshPool, address: Address, engine: DatabaseEngine, tls: Tls, repository: str) -> FirstLook:
    """Log in, and look for all that a server needs.

    Raises:
        RemoteError: the server could not be asked.
    """
    layout = await requirements.read_layout(host_to_look_at(pool, address, Layout()))
    host = host_to_look_at(pool, address, layout)
    findings = await requirements.check(host, engine, tls)
    docker_is_there = any(row.name == "docker" and row.ok for row in findings)
    images = await list_images(host, repository) if docker_is_there else []
    return FirstLook(layout, tuple(findings), tuple(images))


async def list_images(host: Host, repository: str) -> list[Image]:
    """The app's images on a server, the newest first.

    Raises:
        RemoteError: the server could not be asked.
    """
    rows = docker.parse_lines((await host.run(docker.list_images(repository))).text)
    names = sorted({f"{row['Repository']}:{row['Tag']}" for row in rows if row.get("Tag") not in (None, "<none>")})
    found: set[Image] = set()
    for first in range(0, len(names), IMAGES_AT_ONCE):
        text = (await host.run(docker.inspect_images(names[first : first + IMAGES_AT_ONCE]))).text
        found.update(docker.parse_images(text, repository))
    return docker.newest_first(found)


async def busy_ports(host: Host) -> set[int]:
    """The ports that something on a server listens on.

    Raises:
        RemoteError: the server could not be asked.
    """
    result = await host.run(requirements.listening_ports(), check=False)
    return requirements.parse_listening_ports(result.text)
