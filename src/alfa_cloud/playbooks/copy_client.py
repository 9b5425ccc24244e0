"""A client is copied to a stage server, while it works and without noticing."""

from __future__ import annotations

from dataclasses import dataclass

from alfa_cloud.playbooks.playbook import Elsewhere, Playbook, Step
from alfa_cloud.playbooks.steps.client import EnsureContainer, ended_well
from alfa_cloud.playbooks.steps.database_copy import CheckDatabaseSpace, CopyDatabase
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.playbooks.steps.image import EnsureImage
from alfa_cloud.playbooks.steps.server import CheckOwnership
from alfa_cloud.playbooks.steps.tree import CheckFilesSpace, CopyFiles
from alfa_cloud.remote import app
from alfa_cloud.remote.host import Host
from alfa_cloud.specs import ClientSpec


@dataclass(frozen=True, slots=True)
class Scrub(Step):
    """Personal data was taken out of the copy."""

    spec: ClientSpec

    def __str__(self) -> str:
        return "Take personal data out of the copy"

    async def is_satisfied(self, host: Host) -> bool:
        return await ended_well(host, app.scrub(self.spec))

    async def apply(self, host: Host) -> None:
        await host.run(app.scrub(self.spec))

    async def undo(self, host: Host) -> None:
        await host.stop_detached("scrub")


@dataclass(frozen=True, slots=True)
class Original:
    """The client that is copied, and the copy's own server as seen from there."""

    spec: ClientSpec
    where: Elsewhere
    here: Elsewhere


def copy_client(
    original: Original,
    spec: ClientSpec,
    create: Playbook,
    *,
    login: Step,
    image: EnsureImage,
    name: str,
    min_free_bytes: int,
    scrub: bool,
) -> Playbook:
    """The copy lives on its own server with the original's data of one moment; a failure leaves nothing of it.

    Args:
        create: what brings a client to life; the data come in before its container starts.
        login: lets the copy's database be filled by its own user.
        name: of the transfer, the operation's own.
    """
    source, here, on = original.spec, original.here, original.where.on
    check, *steps = create.steps
    start = next(place for place, step in enumerate(steps) if isinstance(step, EnsureContainer))
    healthy = start + 2
    return Playbook(
        [
            on(CheckOwnership(source)),
            on(CheckDatabaseSpace(source, here, min_free_bytes)),
            on(CheckFilesSpace(source, here, min_free_bytes)),
            image,
            check,
            *steps[:start],
            login,
            on(CopyFiles(source, here, spec, name)),
            on(CopyDatabase(source, here, spec, name)),
            *steps[start:healthy],
            *([Scrub(spec)] if scrub else []),
            *steps[healthy:],
            Tell(f"{spec.name} is a copy of {source.name}", {"client_id": str(spec.id)}),
        ]
    )
