"""Demo data comes into a client's database, and goes."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings, WaitHealthy
from alfa_cloud.playbooks.steps.data import CheckDumpSpace, EnsureDump, RemoveDump
from alfa_cloud.playbooks.steps.demo import BringBack, CheckDump, Seed
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.playbooks.steps.migration import (
    CheckSpace,
    DumpBehindPage,
    LiftPage,
    MigrateAlone,
    ShowPage,
    StartAgain,
    StopContainers,
    WaitFormerHealthy,
    WaitQuiet,
)
from alfa_cloud.playbooks.steps.rollout import RollOut, WaitBesideHealthy
from alfa_cloud.playbooks.steps.server import CheckOwnership
from alfa_cloud.playbooks.steps.web import WaitAnswering
from alfa_cloud.specs import ClientSpec, CloudSettings


def enable_demo(spec: ClientSpec, *, dump: str, min_free_bytes: int) -> Playbook:
    """The demo data is there; a dump of the time before it is kept. A seeder that fails is not taken back: people
    worked meanwhile.
    """
    steps: list[Step] = [
        CheckOwnership(spec),
        WaitHealthy(spec),
        CheckDumpSpace(spec, dump, min_free_bytes),
        EnsureDump(spec, dump, "demo"),
        Tell(f"The dump {dump} is kept", {"dump": dump}),
        Seed(spec, dump),
    ]
    return Playbook(steps, undo_on_failure=False)


def disable_demo(spec: ClientSpec, *, dump: str) -> Playbook:
    """The inverse seeder took the demo data away, and the dump of before is gone; where it fails, all stays."""
    steps: list[Step] = [CheckOwnership(spec), WaitHealthy(spec), Seed(spec, dump, inverse=True)]
    return Playbook([*steps, *([RemoveDump(spec, dump)] if dump else [])], undo_on_failure=False)


def restore_before_demo(
    rollout: RollOut, settings: CloudSettings, *, dump: str, fresh: str, min_free_bytes: int
) -> Playbook:
    """The client's data is as it was before the demo; a dump of the present is kept. A failure leaves the present.

    Args:
        settings: what the client's database says, and is to say.
        dump: of the time before the demo data.
        fresh: the name of the dump that is made now.
    """
    spec = rollout.before
    steps: list[Step] = [
        CheckOwnership(spec),
        CheckDump(spec, dump),
        CheckSpace(CheckDumpSpace(spec, fresh, min_free_bytes)),
        ShowPage(rollout),
        WaitFormerHealthy(rollout),
        WaitQuiet(rollout),
        StopContainers(rollout),
        DumpBehindPage(rollout, fresh),
        BringBack(rollout, settings, dump, fresh),
        MigrateAlone(rollout),
        StartAgain(rollout),
        WaitBesideHealthy(rollout),
        EnsureCloudSettings(spec, rollout.secrets.database_password, settings),
        WaitAnswering(spec),
    ]
    lift = [LiftPage(rollout), Tell(f"The dump {fresh} is kept", {"dump": fresh}), RemoveDump(spec, dump)]
    return Playbook([*steps, *lift], no_return=len(steps))
