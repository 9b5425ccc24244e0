"""Steps of a server's reboot: it goes down, comes back as another boot, and serves its clients again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from alfa_cloud.errors import RemoteError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.waiting import within
from alfa_cloud.remote import boot, docker
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.nginx import HEALTH_PATH

ASKED_AT_ONCE: Final = 20
KILLED_FROM: Final = 128
"""Exit statuses from here on are signals': the server is going down already."""


@dataclass(frozen=True, slots=True)
class RebootServer(Step):
    """The server has booted anew since this operation began.

    Args:
        deadline_s: how long it may be away.
        under_way: whether an earlier worker asked for it already: then a server that is away is waited for.
        domains: of the clients that are to answer again; kept for a worker that takes over.
    """

    deadline_s: float
    under_way: bool
    domains: tuple[str, ...]

    def __str__(self) -> str:
        return "Reboot"

    async def is_satisfied(self, host: Host) -> bool:
        if self.under_way:
            await self._wait(host, lambda: _there(host))
        former = (await host.run(boot.remember_id())).text.strip()
        return (await host.run(boot.read_id())).text.strip() != former

    async def apply(self, host: Host) -> None:
        former = (await host.run(boot.remember_id())).text.strip()
        await host.report(rebooted_from=former, domains=list(self.domains))
        await self._ask(host)
        await host.note(f"Waiting for the server to come back, {self.deadline_s:g} s at most.")
        await self._wait(host, lambda: _booted(host, former))

    async def _ask(self, host: Host) -> None:
        try:
            result = await host.run(boot.reboot(), check=False)
        except RemoteError as error:
            await host.note(f"{error.detail} That is to be expected of a reboot.")
            return
        if 0 < result.exit_status < KILLED_FROM:
            raise StepFailedError("The server refuses to reboot; the log has its words.", code="reboot_refused")

    async def _wait(self, host: Host, holds: Callable[[], Awaitable[bool]]) -> None:
        if not await within(self.deadline_s, holds):
            raise StepFailedError(
                f"The server did not come back within {self.deadline_s:g} s; look at its console.",
                code="server_did_not_return",
            )


async def _there(host: Host) -> bool:
    await host.run(boot.read_id())
    return True


async def _booted(host: Host, former: str) -> bool:
    return (await host.run(boot.read_id())).text.strip() != former


@dataclass(frozen=True, slots=True)
class WaitDocker(Check):
    """Docker answers."""

    deadline_s: float

    def __str__(self) -> str:
        return "Docker answers"

    async def check(self, host: Host) -> None:
        async def answers() -> bool:
            return (await host.run(docker.version(), check=False)).ok

        if not await within(self.deadline_s, answers):
            raise StepFailedError(
                f"Docker did not answer within {self.deadline_s:g} s of the reboot; see `service docker status`.",
                code="docker_unavailable",
            )


@dataclass(frozen=True, slots=True)
class WaitClients(Check):
    """The clients that answered before answer again, through nginx."""

    domains: tuple[str, ...]
    deadline_s: float

    def __str__(self) -> str:
        return f"Clients answer: {len(self.domains)}"

    async def check(self, host: Host) -> None:
        silent = set(self.domains)

        async def answer() -> bool:
            slots = asyncio.Semaphore(ASKED_AT_ONCE)

            async def ask(domain: str) -> None:
                async with slots:
                    if await host.http_status(domain, HEALTH_PATH) == 200:
                        silent.discard(domain)

            await asyncio.gather(*(ask(domain) for domain in sorted(silent)))
            return not silent

        if not await within(self.deadline_s, answer):
            raise StepFailedError(
                f"The server is back; of {len(self.domains)} clients these do not answer: {', '.join(sorted(silent))}.",
                code="clients_did_not_return",
            )
