"""Steps that bring a client's next container to life beside the present one, and let it take over.

Which of a client's two places is the present one is looked up on the server: the row's, unless only the other one has
a container, as an operation that was cut off past its point of no return leaves it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, StepFailedError
from alfa_cloud.playbooks.playbook import Step
from alfa_cloud.playbooks.steps.client import EnsureComposeFile, EnsureContainer, SetOwner, WaitHealthy
from alfa_cloud.playbooks.steps.ownership import find_container
from alfa_cloud.playbooks.steps.web import EnsurePage, EnsureVirtualHost
from alfa_cloud.remote import app, compose, docker, files
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import ClientSecrets, ClientSpec, PageKind, Secret

POLL_S: Final = 0.25
QUIET_S: Final = 1.0
"""So long no request may be under way: nginx tells its old workers only when the new ones are up."""
DRAIN_S: Final = 60.0
"""How long the former container may go on with the requests that it has, before it is told to stop."""

LIFTED: Final = Command(("true",), sudo=True, detached="page-lifted", log=False)
"""Leaves its exit status on the server: from then on a page of this operation is not shown again."""


@dataclass(frozen=True, slots=True)
class Places:
    """A client in the place where it is served, and in the one where it is to be served; these may be the same."""

    present: ClientSpec
    target: ClientSpec

    @property
    def stays(self) -> bool:
        """Whether its container does as it is."""
        return self.present.slot is self.target.slot

    @property
    def other(self) -> ClientSpec:
        """The client in the place that nothing is to be left in."""
        return beside(self.target)


def beside(spec: ClientSpec) -> ClientSpec:
    """The same client in its other place."""
    return spec.beside(spec.image)


def under_page(spec: ClientSpec) -> ClientSpec:
    """The client with a page before it: the one that is there, else that of maintenance."""
    return spec if spec.page else replace(spec, page=PageKind.MAINTENANCE, page_text="", page_ends_at="")


@dataclass(slots=True, eq=False)
class RollOut:
    """One change of a client's container; its steps share what it found on the server.

    Args:
        before: the client as its row has it.
        after: the client as it is to be, in the place of the row.
        restart: whether a new container is wanted though the present one is as it should be.
        in_place: whether the present container is kept, whatever it is.
    """

    before: ClientSpec
    after: ClientSpec
    secrets: ClientSecrets = field(repr=False)
    restart: bool = False
    in_place: bool = False
    data_at_risk: bool = False
    """Whether the client's database is not, or not yet, as it was before."""
    _places: Places | None = field(default=None, init=False)

    async def places(self, host: Host) -> Places:
        """Where the client is, and where it is to be; the same from the first look to the last."""
        if self._places is None:
            self._places = await self._look(host)
        return self._places

    async def _look(self, host: Host) -> Places:
        here, there = self.before, beside(self.before)
        moved = await find_container(host, here) is None and await find_container(host, there) is not None
        present, wanted = (there, beside(self.after)) if moved else (here, self.after)
        found = await find_container(host, present)
        as_wanted = found is not None and found.labels.get(docker.LABEL_SPEC) == self.label(wanted)
        stays = self.in_place or (as_wanted and (moved or not self.restart))
        return Places(present, wanted if stays else beside(wanted))

    def label(self, spec: ClientSpec) -> str:
        """What the container bears that is as it should be."""
        return compose.label_of(spec, self.secrets)


@dataclass(frozen=True, slots=True)
class ClearBeside(Step):
    """Nothing but the container that is to take over stands in the place beside the present one."""

    rollout: RollOut

    def __str__(self) -> str:
        return "Clear the place beside the present container"

    async def is_satisfied(self, host: Host) -> bool:
        places = await self.rollout.places(host)
        found = None if places.stays else await find_container(host, places.target)
        return found is None or found.labels.get(docker.LABEL_SPEC) == self.rollout.label(places.target)

    async def apply(self, host: Host) -> None:
        places = await self.rollout.places(host)
        await point_to(host, places.present)
        await wait_quiet(host, places.target.port, DRAIN_S)
        await host.run(docker.remove_container(places.target.container))


@dataclass(frozen=True, slots=True)
class EnsureServices(Step):
    """The client's compose file has the present container, and the one that is to take over."""

    rollout: RollOut

    def __str__(self) -> str:
        return "Configuration of the container"

    async def _content(self, host: Host) -> bytes:
        places = await self.rollout.places(host)
        if places.stays:
            return compose.render(places.target, self.rollout.secrets)
        return compose.render(places.present, self.rollout.secrets, beside=places.target)

    async def is_satisfied(self, host: Host) -> bool:
        return await files.holds(host, compose.path(self.rollout.after), await self._content(host))

    async def apply(self, host: Host) -> None:
        content = await self._content(host)
        await host.run(files.write_file(compose.path(self.rollout.after), content, mode="0600", keep=True))

    async def undo(self, host: Host) -> None:
        present = (await self.rollout.places(host)).present
        await EnsureComposeFile(present, self.rollout.secrets).apply(host)


@dataclass(frozen=True, slots=True)
class StartBeside(Step):
    """The container that is to serve the client runs, beside the present one where that is another."""

    rollout: RollOut

    def __str__(self) -> str:
        return f"Container from {self.rollout.after.image}"

    async def _step(self, host: Host) -> EnsureContainer:
        target = (await self.rollout.places(host)).target
        return EnsureContainer(target, self.rollout.label(target))

    async def is_satisfied(self, host: Host) -> bool:
        return await (await self._step(host)).is_satisfied(host)

    async def apply(self, host: Host) -> None:
        await (await self._step(host)).apply(host)

    async def undo(self, host: Host) -> None:
        places = await self.rollout.places(host)
        if places.stays:
            return
        if not await shows(host, places.present):
            await self._point_back(host, places)
        if host.facts.get("slot", places.present.slot) != places.present.slot:
            await host.report(slot=places.present.slot)
        await (await self._step(host)).undo(host)

    async def _point_back(self, host: Host, places: Places) -> None:
        """nginx has the present place; where it cannot, the container that it may have is left as it is."""
        try:
            await point_to(host, places.present)
        except (CommandFailedError, CommandTimeoutError, StepFailedError) as error:
            if await shows(host, places.target):
                await host.report(slot=places.target.slot)
            raise StepFailedError(
                f"nginx could not be pointed back to {places.present.container}, so {places.target.container} was "
                f"left as it is: {error.detail}",
                code="proxy_not_back",
            ) from error


@dataclass(frozen=True, slots=True)
class WaitBesideHealthy(Step):
    """The container that is to serve the client answers its health path with 200."""

    stoppable: ClassVar[bool] = True
    rollout: RollOut

    def __str__(self) -> str:
        return str(WaitHealthy(self.rollout.after))

    async def is_satisfied(self, host: Host) -> bool:
        return await WaitHealthy((await self.rollout.places(host)).target).is_satisfied(host)

    async def apply(self, host: Host) -> None:
        await WaitHealthy((await self.rollout.places(host)).target).apply(host)


@dataclass(frozen=True, slots=True)
class SetOwnerThere(Step):
    """The laboratory's administrator can log in."""

    rollout: RollOut
    password: Secret = field(repr=False)

    def __str__(self) -> str:
        return f"Administrator {self.rollout.after.owner_login}"

    async def _step(self, host: Host) -> SetOwner:
        return SetOwner((await self.rollout.places(host)).target, self.password)

    async def is_satisfied(self, host: Host) -> bool:
        return await (await self._step(host)).is_satisfied(host)

    async def apply(self, host: Host) -> None:
        await (await self._step(host)).apply(host)

    async def undo(self, host: Host) -> None:
        await (await self._step(host)).undo(host)


@dataclass(frozen=True, slots=True)
class PointProxy(Step):
    """nginx sends the client's visitors to its container; the operation's result knows which one.

    Args:
        paged: whether a page is before the client meanwhile.
    """

    rollout: RollOut
    paged: bool = False

    def __str__(self) -> str:
        return f"Virtual host {self.rollout.after.domain}"

    async def _step(self, host: Host, spec: ClientSpec) -> EnsureVirtualHost:
        paged = self.paged and not await lifted(host)
        return EnsureVirtualHost(under_page(spec) if paged else spec)

    async def is_satisfied(self, host: Host) -> bool:
        target = (await self.rollout.places(host)).target
        if not await (await self._step(host, target)).is_satisfied(host):
            return False
        await host.report(slot=target.slot)
        return True

    async def apply(self, host: Host) -> None:
        target = (await self.rollout.places(host)).target
        await (await self._step(host, target)).apply(host)

    async def undo(self, host: Host) -> None:
        present = (await self.rollout.places(host)).present
        step = await self._step(host, present)
        if not await step.is_satisfied(host):
            await step.apply(host)
        await host.report(slot=present.slot)


@dataclass(frozen=True, slots=True)
class RetireFormer(Step):
    """The container that serves the client no more ended the requests that it had, and is gone."""

    rollout: RollOut

    def __str__(self) -> str:
        return "Stop and remove the former container"

    async def is_satisfied(self, host: Host) -> bool:
        return await find_container(host, (await self.rollout.places(host)).other) is None

    async def apply(self, host: Host) -> None:
        former = (await self.rollout.places(host)).other
        if not await wait_quiet(host, former.port, DRAIN_S):
            await host.note(f"Some requests to the former container took longer than {DRAIN_S:g} s; they are cut off.")
        if await find_container(host, former) is not None:
            await host.run(docker.stop_container(former.container))
            await host.run(docker.remove_container(former.container))


@dataclass(frozen=True, slots=True)
class EnsureOneService(Step):
    """The client's compose file has the container that serves it, and no other."""

    rollout: RollOut

    def __str__(self) -> str:
        return "Configuration without the former container"

    async def _step(self, host: Host) -> EnsureComposeFile:
        return EnsureComposeFile((await self.rollout.places(host)).target, self.rollout.secrets)

    async def is_satisfied(self, host: Host) -> bool:
        return await (await self._step(host)).is_satisfied(host)

    async def apply(self, host: Host) -> None:
        await (await self._step(host)).apply(host)


async def shows(host: Host, spec: ClientSpec) -> bool:
    """Whether nginx has the client in this place, be it under a page."""
    for one in {spec, under_page(spec)}:
        if await EnsureVirtualHost(one).is_satisfied(host):
            return True
    return False


async def point_to(host: Host, spec: ClientSpec) -> None:
    """nginx has the client in this place, under the page that this operation has shown, if it has.

    Raises:
        CommandFailedError, CommandTimeoutError, StepFailedError: it could not be brought about.
    """
    spec = under_page(spec) if host.facts.get("page_shown") else spec
    if spec.page:
        await EnsurePage(spec).apply(host)
    if not await EnsureVirtualHost(spec).is_satisfied(host):
        await EnsureVirtualHost(spec).apply(host)


async def lifted(host: Host) -> bool:
    """Whether this operation is past the point from which the client is served again."""
    return await host.detached_status(LIFTED.detached or "") == 0


async def wait_quiet(host: Host, port: int, limit_s: float, *, page: Command | None = None) -> bool:
    """Whether no connection to a port of the server's loopback was open for a moment, before the limit.

    Args:
        page: prints 503 once nginx shows a page instead of the client; before that nothing counts.
    """
    deadline = time.monotonic() + limit_s
    quiet_since: float | None = None
    while True:
        now = time.monotonic()
        if page is not None and (await host.run(page, check=False)).text.strip() != "503":
            quiet_since = None
        elif await open_connections(host, port):
            page, quiet_since = None, None
        elif quiet_since is None:
            page, quiet_since = None, now
        elif now - quiet_since >= QUIET_S:
            return True
        if now >= deadline:
            return False
        await asyncio.sleep(POLL_S)


async def open_connections(host: Host, port: int) -> int:
    """How many connections to a port are open on the server."""
    return app.parse_count((await host.run(app.connections_to(port))).text)
