"""Steps of a client on its way from one server to another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from alfa_cloud.playbooks.playbook import Elsewhere, Step
from alfa_cloud.playbooks.steps.client import EnsureComposeFile, EnsureContainer, WaitHealthy
from alfa_cloud.playbooks.steps.ownership import find_container
from alfa_cloud.playbooks.steps.rollout import RollOut, lifted
from alfa_cloud.playbooks.steps.web import EnsureVirtualHost, has_certificate
from alfa_cloud.remote import docker, nginx
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import ClientSpec


@dataclass(frozen=True, slots=True)
class StopClient(Step):
    """The client's container is not on the server: nothing writes, and no reboot brings it back.

    Taken back, it serves again, unless its data could not be brought back: then nobody may write to them.
    """

    rollout: RollOut

    def __str__(self) -> str:
        return f"Stop the container {self.rollout.before.container}"

    async def is_satisfied(self, host: Host) -> bool:
        if await lifted(host):
            return True
        return await find_container(host, (await self.rollout.places(host)).present) is None

    async def apply(self, host: Host) -> None:
        container = (await self.rollout.places(host)).present.container
        await host.run(docker.stop_container(container))
        await host.run(docker.remove_container(container))

    async def undo(self, host: Host) -> None:
        if self.rollout.data_at_risk:
            return
        present = (await self.rollout.places(host)).present
        container = EnsureContainer(present, self.rollout.label(present))
        if not await container.is_satisfied(host):
            await EnsureComposeFile(present, self.rollout.secrets).apply(host)
            await container.apply(host)
        if not await WaitHealthy(present).is_satisfied(host):
            await WaitHealthy(present).apply(host)


@dataclass(frozen=True, slots=True)
class Commit(Step):
    """The service's row says the other server: from here on there is only forward.

    Args:
        is_done: whether the row says so.
        do: make it say so, in one transaction.
    """

    title: str
    is_done: Callable[[], Awaitable[bool]] = field(repr=False)
    do: Callable[[], Awaitable[None]] = field(repr=False)

    def __str__(self) -> str:
        return self.title

    async def is_satisfied(self, host: Host) -> bool:
        if not await self.is_done():
            return False
        await host.report(moved=True, page_shown=False)
        return True

    async def apply(self, host: Host) -> None:
        del host
        await self.do()


@dataclass(frozen=True, slots=True)
class Forward(EnsureVirtualHost):
    """Whoever still comes to this server is sent on to the one where the client is now."""

    target: Elsewhere = field(kw_only=True)
    target_spec: ClientSpec = field(kw_only=True)

    def __str__(self) -> str:
        return f"Send the visitors of {self.spec.domain} on to {self.target.name}"

    async def _content(self, host: Host) -> bytes:
        await self.target.host.run(Command(("true",), log=False, timeout_s=30))  # its address is known from here on
        return nginx.render_forward(
            self.spec,
            self.target_spec,
            self.target.host.address,
            secure=await has_certificate(host, self.spec),
            target_secure=await has_certificate(self.target.host, self.target_spec),
        )
