"""Steps that say what a playbook has decided or come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alfa_cloud.playbooks.playbook import Check
from alfa_cloud.remote.host import Host


@dataclass(frozen=True, slots=True)
class Tell(Check):
    """The operation's result holds these facts; the title says them in words."""

    title: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.title

    async def check(self, host: Host) -> None:
        await host.report(**self.facts)
