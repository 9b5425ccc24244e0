"""Fixtures: a prepared practice server, and hosts on it."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.prepare_server import prepare_server
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.session import SshHost
from alfa_cloud.sandbox.practice import PracticeServer
from alfa_cloud.specs import Address, DatabaseEngine, Secret, Stream, Tls
from tests.fixtures.practice import practice, practice_key

__all__ = ["practice", "practice_key", "site"]


@dataclass
class Lines:
    """A sink that keeps everything."""

    texts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    async def lines(self, stream: Stream, lines: Sequence[str], checkpoint: tuple[str, int] | None = None) -> None:
        self.texts += lines
        if checkpoint is not None:
            self.offsets[checkpoint[0]] = checkpoint[1]

    def checkpoint(self, name: str) -> int:
        return self.offsets.get(name, 0)

    async def note(self, text: str, /) -> None:
        self.notes.append(text)

    async def warn(self, text: str, /) -> None:
        self.warnings.append(text)

    async def report(self, **facts: Any) -> None:
        self.facts |= facts


@dataclass
class Site:
    """A practice server, and the way to it."""

    practice: PracticeServer
    pool: SshPool
    address: Address

    def host(self, sink: Lines, operation: str) -> SshHost:
        """A host for one operation."""
        layout = self.practice.layout
        return SshHost(
            self.pool, self.address, layout, sink=sink, operation_dir=layout.operation_dir(operation), fence=1,
            masker=Masker(), guard=lambda: None,
        )  # fmt: skip

    @property
    def root(self) -> Path:
        return Path(self.practice.layout.root)


async def carry_out(playbook: Playbook, host: SshHost) -> list[str]:
    """Run a playbook as the runner does, without its journal; the names of the steps that had to be applied."""
    applied = []
    for step in playbook.steps:
        if await step.is_satisfied(host):
            continue
        await step.apply(host)
        assert await step.is_satisfied(host), step
        applied.append(type(step).__name__)
    return applied


@pytest.fixture(scope="module")
async def site(practice: PracticeServer, practice_key: asyncssh.SSHKey) -> AsyncIterator[Site]:
    """A prepared practice server."""
    key = practice_key.export_private_key("openssh").decode()
    pool = SshPool(Secret(key), allowed_networks=[ipaddress.ip_network("127.0.0.0/8")])
    address = Address(1, practice.host, practice.port, practice.username, practice.host_key)
    found = Site(practice, pool, address)
    preparation = prepare_server(practice.layout, DatabaseEngine.POSTGRESQL, Tls.CERTBOT)
    await carry_out(preparation, found.host(Lines(), "prepare"))
    assert await carry_out(preparation, found.host(Lines(), "prepare-2")) == []
    yield found
    await pool.close()


@pytest.fixture
def lines() -> Lines:
    """What a test's operation said."""
    return Lines()
