"""Steps of a migration behind a page: nobody writes from the dump to the end, so that a restore loses nothing.

The page keeps visitors away; the client's containers are stopped, for their queues and schedulers write as well. The
migration runs in a container of its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar, Final

from alfa_cloud.errors import StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings, Migrate, WaitHealthy, ended_well
from alfa_cloud.playbooks.steps.data import RESTORE_S, CheckDumpSpace, EnsureDump, RemoveDump, restore
from alfa_cloud.playbooks.steps.ownership import find_container
from alfa_cloud.playbooks.steps.rollout import LIFTED, POLL_S, QUIET_S, RollOut, lifted, under_page, wait_quiet
from alfa_cloud.playbooks.steps.web import EnsurePage, EnsureVirtualHost, RemovePage, has_certificate
from alfa_cloud.remote import app, compose, docker, dump
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import ClientSpec, CloudSettings

REQUESTS_S: Final = 30.0
SERVED_LOOKS: Final = 40
RUNNING: Final = ("running", "restarting")


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
        await host.report(page_shown=True)
        await EnsurePage(paged).apply(host)
        await EnsureVirtualHost(paged).apply(host)

    async def undo(self, host: Host) -> None:
        present = (await self.rollout.places(host)).present
        if self.rollout.data_at_risk:
            raise StepFailedError(
                "The maintenance page stays, for the client's data could not be brought back; its dump is kept in "
                f"{dump.folder(present)}, and its container stopped. Mend the cause and restore it, reboot the client, "
                "then disable the maintenance.",
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
class StopContainers(Step):
    """The client's containers do not run: their queues and schedulers write, too, and nginx's page stops neither.

    Taken back, they run again, unless the client's data could not be brought back: then nobody may write to it.
    """

    rollout: RollOut

    def __str__(self) -> str:
        return "Stop the container"

    async def is_satisfied(self, host: Host) -> bool:
        if await lifted(host) or await host.detached_status(app.MIGRATION) == 0:
            return True
        return not [one for one in await _containers(host, self.rollout) if one.status in RUNNING]

    async def apply(self, host: Host) -> None:
        await stop_containers(host, self.rollout)

    async def undo(self, host: Host) -> None:
        if self.rollout.data_at_risk:
            return
        for one in await _containers(host, self.rollout):
            await host.run(docker.start_container(one.name))


async def _containers(host: Host, rollout: RollOut) -> list[docker.Container]:
    """What there is of the client's containers."""
    places = await rollout.places(host)
    found = [await find_container(host, spec) for spec in dict.fromkeys((places.present, places.target))]
    return [one for one in found if one is not None]


async def stop_containers(host: Host, rollout: RollOut) -> None:
    """None of the client's containers runs."""
    for one in await _containers(host, rollout):
        await host.run(docker.stop_container(one.name))


@dataclass(frozen=True, slots=True)
class StartAgain(Step):
    """The client's container runs, as it is."""

    rollout: RollOut

    def __str__(self) -> str:
        return "Start the container"

    async def is_satisfied(self, host: Host) -> bool:
        found = await find_container(host, (await self.rollout.places(host)).target)
        return found is not None and found.status in RUNNING

    async def apply(self, host: Host) -> None:
        await host.run(docker.start_container((await self.rollout.places(host)).target.container))


@dataclass(frozen=True, slots=True)
class MigrateAlone(Step):
    """The database has the tables of the application's version, by a container of its own; taken back, that is gone."""

    rollout: RollOut

    def __str__(self) -> str:
        return str(Migrate(self.rollout.after))

    async def is_satisfied(self, host: Host) -> bool:
        return await lifted(host) or await ended_well(host, await self._command(host))

    async def apply(self, host: Host) -> None:
        await host.run(await self._command(host))

    async def _command(self, host: Host) -> Command:
        return app.migrate_alone((await self.rollout.places(host)).target)

    async def undo(self, host: Host) -> None:
        await host.stop_detached(app.MIGRATION)
        await host.run(compose.end_alone(self.rollout.before))


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

    undo_s: ClassVar[float] = RESTORE_S
    rollout: RollOut
    settings: CloudSettings = field(repr=False)
    name: str

    def __str__(self) -> str:
        return str(self._step)

    @property
    def _step(self) -> MigrateAlone:
        return MigrateAlone(self.rollout)

    async def is_satisfied(self, host: Host) -> bool:
        if not await self._step.is_satisfied(host):
            return False
        await host.report(migrated=True)
        return True

    async def apply(self, host: Host) -> None:
        await self._step.apply(host)

    async def undo(self, host: Host) -> None:
        if not await host.detached_began(app.MIGRATION):
            return
        self.rollout.data_at_risk = True
        await host.report(migrated=False)
        await self._step.undo(host)
        await bring_back(host, self.rollout, self.name, self.settings)


async def bring_back(host: Host, rollout: RollOut, dump_name: str, settings: CloudSettings) -> None:
    """The client's database is as a dump has it, once in an operation; from here on its data is not at risk."""
    await stop_containers(host, rollout)
    if await host.detached_status(f"restore-{dump_name}") != 0:
        await restore(host, rollout.before, dump_name)
    await EnsureCloudSettings(rollout.before, rollout.secrets.database_password, settings).apply(host)
    rollout.data_at_risk = False


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
        if not self.rollout.data_at_risk:
            await WaitHealthy((await self.rollout.places(host)).present).apply(host)


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
