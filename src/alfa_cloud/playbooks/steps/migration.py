"""Steps of a migration behind a page: nobody writes from the dump to the end, so that a restore loses nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from alfa_cloud.errors import StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings, Migrate, WaitHealthy
from alfa_cloud.playbooks.steps.data import CheckDumpSpace, EnsureDump, RemoveDump, restore
from alfa_cloud.playbooks.steps.ownership import find_container
from alfa_cloud.playbooks.steps.rollout import LIFTED, POLL_S, QUIET_S, RollOut, lifted, under_page, wait_quiet
from alfa_cloud.playbooks.steps.web import EnsurePage, EnsureVirtualHost, RemovePage, has_certificate
from alfa_cloud.remote import app, docker, dump
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import ClientSpec, CloudSettings

ENDED_BY_SIGNAL: Final = 124
"""From here on an exit status means that the program was ended, and that its child in a container may live on."""
REQUESTS_S: Final = 30.0
SERVED_LOOKS: Final = 40


@dataclass(frozen=True, slots=True)
class CheckSpace(Check):
    """There is room for the dump, where it is still to be made."""

    inner: CheckDumpSpace

    def __str__(self) -> str:
        return str(self.inner)

    async def check(self, host: Host) -> None:
        if not await lifted(host):
            await self.inner.check(host)


@dataclass(frozen=True, slots=True)
class ShowPage(Step):
    """The maintenance page stands for the client, unless another page does already.

    Taken back, it goes, unless the client's data could not be brought back: then nobody may write to it.
    """

    rollout: RollOut

    def __str__(self) -> str:
        return "Show the maintenance page"

    async def is_satisfied(self, host: Host) -> bool:
        if await lifted(host):
            return True
        places = await self.rollout.places(host)
        paged = under_page(places.present)
        if not await EnsurePage(paged).is_satisfied(host):
            return False
        shown = [await EnsureVirtualHost(under_page(one)).is_satisfied(host) for one in {places.present, places.target}]
        if not any(shown):
            return False
        await host.report(page_shown=True)
        return True

    async def apply(self, host: Host) -> None:
        paged = under_page((await self.rollout.places(host)).present)
        await EnsurePage(paged).apply(host)
        await EnsureVirtualHost(paged).apply(host)

    async def undo(self, host: Host) -> None:
        present = (await self.rollout.places(host)).present
        if self.rollout.data_at_risk:
            raise StepFailedError(
                "The maintenance page stays, for the client's data could not be brought back; its dump is kept in "
                f"{dump.folder(present)}. Mend the cause and restore it, then disable the maintenance.",
                code="data_not_restored",
            )
        await show(host, present)


async def show(host: Host, spec: ClientSpec) -> None:
    """nginx shows the client as it is to be shown, and no page of this operation is left."""
    if not await EnsureVirtualHost(spec).is_satisfied(host):
        await EnsureVirtualHost(spec).apply(host)
    if not spec.page:
        await _wait_served(host, spec)
        await RemovePage(spec).apply(host)
    await host.report(page_shown=False)


async def _wait_served(host: Host, spec: ClientSpec) -> None:
    """nginx's old workers, which still want the page's file, have had their time to go."""
    front = app.front(spec, secure=await has_certificate(host, spec))
    for _ in range(SERVED_LOOKS):
        if (await host.run(front, check=False)).text.strip() != "503":
            break
        await asyncio.sleep(POLL_S)
    await asyncio.sleep(QUIET_S)


@dataclass(frozen=True, slots=True)
class WaitQuiet(Check):
    """No request to the client is under way any more; those that were had their time."""

    rollout: RollOut

    def __str__(self) -> str:
        return "Wait for the requests under way"

    async def check(self, host: Host) -> None:
        if await lifted(host):
            return
        present = (await self.rollout.places(host)).present
        front = app.front(present, secure=await has_certificate(host, present))
        if not await wait_quiet(host, present.port, REQUESTS_S, page=front):
            raise StepFailedError(
                f"Requests to the client took longer than {REQUESTS_S:g} s, or its page did not come up; "
                "what they write would be lost in a restore. Retry when it is quieter.",
                code="requests_running",
            )


@dataclass(frozen=True, slots=True)
class DumpBehindPage(Step):
    """A verified dump of the client's database lies on its server; taken back, it goes once the data is safe."""

    rollout: RollOut
    name: str

    def __str__(self) -> str:
        return str(self._step)

    @property
    def _step(self) -> EnsureDump:
        return EnsureDump(self.rollout.before, self.name, "migration", frozen=True)

    async def is_satisfied(self, host: Host) -> bool:
        return await lifted(host) or await self._step.is_satisfied(host)

    async def apply(self, host: Host) -> None:
        await self._step.apply(host)

    async def undo(self, host: Host) -> None:
        await self._step.undo(host)
        if not self.rollout.data_at_risk:
            await RemoveDump(self.rollout.before, self.name).apply(host)


@dataclass(frozen=True, slots=True)
class MigrateData(Step):
    """The database has the tables of the application's version; taken back, it is as the dump has it.

    Args:
        settings: what the client's database said before.
        name: the dump's.
    """

    rollout: RollOut
    settings: CloudSettings = field(repr=False)
    name: str

    def __str__(self) -> str:
        return str(Migrate(self.rollout.after))

    async def is_satisfied(self, host: Host) -> bool:
        target = (await self.rollout.places(host)).target
        if not await lifted(host) and not await Migrate(target).is_satisfied(host):
            return False
        await host.report(migrated=True)
        return True

    async def apply(self, host: Host) -> None:
        await Migrate((await self.rollout.places(host)).target).apply(host)

    async def undo(self, host: Host) -> None:
        self.rollout.data_at_risk = True
        await self._end(host)
        before = self.rollout.before
        if await host.detached_status(f"restore-{self.name}") != 0:
            await restore(host, before, self.name)
        await EnsureCloudSettings(before, self.rollout.secrets.database_password, self.settings).apply(host)
        await host.report(migrated=False)
        self.rollout.data_at_risk = False

    async def _end(self, host: Host) -> None:
        """Nothing of the migration runs, neither here nor in the container."""
        status = await host.detached_status("migrate")
        await host.stop_detached("migrate")
        if status is not None and status < ENDED_BY_SIGNAL:
            return
        target = (await self.rollout.places(host)).target
        if await find_container(host, target) is not None:
            await host.run(docker.restart_container(target.container))


@dataclass(frozen=True, slots=True)
class WaitFormerHealthy(Step):
    """Taken back, the client's former container answers before its page goes; else there is nothing to do."""

    rollout: RollOut

    def __str__(self) -> str:
        return "The present container"

    async def is_satisfied(self, host: Host) -> bool:
        del host
        return True

    async def apply(self, host: Host) -> None:
        del host

    async def undo(self, host: Host) -> None:
        present = (await self.rollout.places(host)).present
        short = replace(present.app, health_deadline_s=min(30.0, present.app.health_deadline_s))
        await WaitHealthy(replace(present, app=short)).apply(host)


@dataclass(frozen=True, slots=True)
class LiftPage(Step):
    """The client is served, or shows the page that it had before."""

    rollout: RollOut

    def __str__(self) -> str:
        return "Take the maintenance page away"

    async def is_satisfied(self, host: Host) -> bool:
        target = (await self.rollout.places(host)).target
        if not await lifted(host) or not await EnsureVirtualHost(target).is_satisfied(host):
            return False
        if not target.page and not await RemovePage(target).is_satisfied(host):
            return False
        await host.report(page_shown=False)
        return True

    async def apply(self, host: Host) -> None:
        await host.run(LIFTED)
        await show(host, (await self.rollout.places(host)).target)
