"""Steps about a client's demo data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from alfa_cloud.errors import CommandFailedError, CommandTimeoutError, StepFailedError
from alfa_cloud.playbooks.playbook import Check, Step
from alfa_cloud.playbooks.steps.client import end_in_container, was_ended
from alfa_cloud.playbooks.steps.data import RESTORE_S, read_manifest, restore
from alfa_cloud.playbooks.steps.migration import MigrateAlone, bring_back
from alfa_cloud.playbooks.steps.rollout import RollOut, lifted
from alfa_cloud.remote import demo
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Host, Result
from alfa_cloud.remote.output import plain_text
from alfa_cloud.specs import ClientSpec, CloudSettings

WAY_BACK = "demo_disable?restore_backup=true&confirm_loss=true brings back the dump {dump}, and loses what came since."


@dataclass(frozen=True, slots=True)
class Seed(Step):
    """The demo seeder, or its inverse, has run to its end in this operation; it is not taken back.

    Args:
        dump: of the time before the demo data; empty where there is none.
    """

    spec: ClientSpec
    dump: str
    inverse: bool = False

    def __str__(self) -> str:
        return "Take the demo data away" if self.inverse else "Add the demo data"

    @property
    def _command(self) -> Command:
        return (demo.take_away if self.inverse else demo.seed)(self.spec)

    async def is_satisfied(self, host: Host) -> bool:
        if await host.detached_status(self._command.detached or "") is None:
            return False
        return (await self._run(host)).ok

    async def _run(self, host: Host) -> Result:
        """The seeder's one run in this operation; where it was ended, nothing of it runs on."""
        name = self._command.detached or ""
        try:
            result = await host.run(self._command, check=False)
        except CommandTimeoutError:
            await end_in_container(host, self.spec, name)
            raise
        if was_ended(result.exit_status):
            await end_in_container(host, self.spec, name)
        return result

    async def apply(self, host: Host) -> None:
        result = await self._run(host)
        if result.ok:
            return
        words = plain_text(b" / ".join(line for line in result.stdout.splitlines() if line.strip())[-500:])
        way_back = WAY_BACK.format(dump=self.dump) if self.dump else ""
        raise CommandFailedError(
            f"The seeder ended with exit status {result.exit_status}: {words} What it wrote stays. {way_back}".strip(),
            exit_status=result.exit_status,
        )


@dataclass(frozen=True, slots=True)
class CheckDump(Check):
    """The dump of the time before the demo data is there, and whole."""

    spec: ClientSpec
    name: str

    def __str__(self) -> str:
        return f"Look for the dump {self.name}"

    async def check(self, host: Host) -> None:
        if await read_manifest(host, self.spec, self.name) is None:
            raise StepFailedError(f"There is no good dump {self.name} on the server.", code="dump_missing")


@dataclass(frozen=True, slots=True)
class BringBack(Step):
    """The client's database is what a dump holds; taken back, it is as the fresh dump has it.

    Args:
        settings: what the client's database is to say of itself.
        name: the dump's.
        fresh: the name of the one that was made in this operation, behind the page.
    """

    undo_s: ClassVar[float] = RESTORE_S
    rollout: RollOut
    settings: CloudSettings = field(repr=False)
    name: str
    fresh: str

    def __str__(self) -> str:
        return f"Restore the dump {self.name}"

    async def is_satisfied(self, host: Host) -> bool:
        return await lifted(host) or await host.detached_status(f"restore-{self.name}") == 0

    async def apply(self, host: Host) -> None:
        await restore(host, self.rollout.before, self.name)

    async def undo(self, host: Host) -> None:
        if not await host.detached_began(f"restore-{self.name}"):
            return
        self.rollout.data_at_risk = True
        await MigrateAlone(self.rollout).undo(host)
        await host.stop_detached(f"restore-{self.name}")
        await bring_back(host, self.rollout, self.fresh, self.settings)
