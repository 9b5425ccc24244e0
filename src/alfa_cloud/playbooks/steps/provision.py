"""Steps that bring a bare server what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from alfa_cloud.errors import StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.waiting import within
from alfa_cloud.remote import docker, provision, requirements
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.requirements import DATABASES
from alfa_cloud.specs import DatabaseEngine, Tls

ANSWERS_WITHIN_S: Final = 90
"""A service that was just started."""


@dataclass(frozen=True, slots=True)
class CheckLogin(Check):
    """The login runs commands, as root too."""

    def __str__(self) -> str:
        return "Check the login"

    async def check(self, host: Host) -> None:
        found = await requirements.look_at_shell(host)
        if found.ok:
            found = await requirements.look(host, requirements.SUDO)
        if not found.ok:
            raise StepFailedError(
                f"This much must be done by hand on the server, as root: {found.mend}", code="requirements_missing"
            )


@dataclass(frozen=True, slots=True)
class EnsureHome(Step):
    """The login has a home."""

    def __str__(self) -> str:
        return "Home of the login"

    async def is_satisfied(self, host: Host) -> bool:
        return (await requirements.look(host, requirements.HOME)).ok

    async def apply(self, host: Host) -> None:
        await host.run(provision.make_home())


@dataclass(frozen=True, slots=True)
class EnsurePackages(Step):
    """Every program is there that a client needs."""

    engine: DatabaseEngine
    tls: Tls

    def __str__(self) -> str:
        return "Packages"

    async def is_satisfied(self, host: Host) -> bool:
        if all(row.ok for row in await requirements.check(host, self.engine, self.tls)):
            return True
        return not await self._missing(host)

    async def _missing(self, host: Host) -> list[str]:
        return (await host.run(provision.missing(self.engine, self.tls), check=False)).text.split()

    async def apply(self, host: Host) -> None:
        names = await self._missing(host)
        await host.note(f"To be installed: {', '.join(names).replace('|', ' or ')}")
        await host.run(provision.install(names))


@dataclass(frozen=True, slots=True)
class EnsureServices(Step):
    """Docker, the database and nginx run."""

    engine: DatabaseEngine

    def __str__(self) -> str:
        return "Services"

    def services(self) -> dict[str, Command]:
        """Each service, and what succeeds where it answers."""
        return {
            "docker": docker.version(),
            provision.SERVICES[self.engine]: DATABASES[self.engine].command,
            "nginx": provision.service_runs("nginx"),
        }

    async def is_satisfied(self, host: Host) -> bool:
        return all([await self._answers(host, name) for name in self.services()])

    async def _answers(self, host: Host, name: str) -> bool:
        return (await host.run(self.services()[name], check=False)).ok

    async def apply(self, host: Host) -> None:
        for name in self.services():
            if await self._answers(host, name):
                continue
            started = await host.run(provision.start_service(name))
            if not started.text.startswith("systemd"):
                await host.warn(
                    f"There is no systemd on this server: {name} was started by `service`; "
                    "see to it that it is started at boot."
                )
            await self._wait_for(host, name)

    async def _wait_for(self, host: Host, name: str) -> None:
        if not await within(ANSWERS_WITHIN_S, lambda: self._answers(host, name)):
            raise StepFailedError(
                f"{name} was started and does not answer; look at its log on the server.", code="service_silent"
            )


@dataclass(frozen=True, slots=True)
class EnsureKeysProtected(Step):
    """The keys that open the login of www-data are root's, so that no process of that number can add one."""

    def __str__(self) -> str:
        return "Keys of the login"

    async def is_satisfied(self, host: Host) -> bool:
        return (await requirements.look(host, requirements.KEYS)).ok

    async def apply(self, host: Host) -> None:
        await host.run(provision.protect_keys())
