"""A client's database gets new tables behind the maintenance page; on failure all is as it was."""

from __future__ import annotations

from alfa_cloud.playbooks.playbook import Playbook, Step
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings
from alfa_cloud.playbooks.steps.data import CheckDumpSpace, RemoveDump
from alfa_cloud.playbooks.steps.drift import NoteDrift
from alfa_cloud.playbooks.steps.image import EnsureImage
from alfa_cloud.playbooks.steps.migration import (
    CheckSpace,
    DumpBehindPage,
    LiftPage,
    MigrateData,
    ShowPage,
    StartAgain,
    StopContainers,
    WaitFormerHealthy,
    WaitQuiet,
)
from alfa_cloud.playbooks.steps.rollout import (
    ClearBeside,
    EnsureOneService,
    EnsureServices,
    PointProxy,
    RetireFormer,
    RollOut,
    StartBeside,
    WaitBesideHealthy,
)
from alfa_cloud.playbooks.steps.server import CheckOwnership
from alfa_cloud.playbooks.steps.web import WaitAnswering
from alfa_cloud.specs import CloudSettings


def migrate_client(rollout: RollOut, settings: CloudSettings, *, dump: str, min_free_bytes: int) -> Playbook:
    """The client's database has the tables of its version.

    Args:
        dump: the name of the dump that is made before.
    """
    steps: list[Step] = [
        CheckOwnership(rollout.before),
        CheckSpace(CheckDumpSpace(rollout.before, dump, min_free_bytes)),
        *_behind_page(rollout, settings, dump),
        StartAgain(rollout),
        WaitBesideHealthy(rollout),
        *_before_lifting(rollout, settings),
    ]
    return Playbook([*steps, LiftPage(rollout), RemoveDump(rollout.before, dump)], no_return=len(steps))


def switch_and_migrate(
    rollout: RollOut,
    old: CloudSettings,
    new: CloudSettings,
    *,
    image: EnsureImage,
    dump: str,
    min_free_bytes: int,
    note_drift: bool = False,
) -> Playbook:
    """The client runs from another image, and its database has that image's tables.

    Args:
        old: what the client's database says now.
        dump: the name of the dump that is made before.
    """
    steps: list[Step] = [
        CheckOwnership(rollout.before),
        CheckSpace(CheckDumpSpace(rollout.before, dump, min_free_bytes)),
        image,
        *([NoteDrift(rollout)] if note_drift else []),
        ClearBeside(rollout),
        EnsureServices(rollout),
        *_behind_page(rollout, old, dump),
        StartBeside(rollout),
        WaitBesideHealthy(rollout),
        PointProxy(rollout, paged=True),
        *_before_lifting(rollout, new),
    ]
    after = [LiftPage(rollout), RetireFormer(rollout), EnsureOneService(rollout), RemoveDump(rollout.before, dump)]
    return Playbook([*steps, *after], no_return=len(steps))


def _behind_page(rollout: RollOut, settings: CloudSettings, dump: str) -> list[Step]:
    return [
        ShowPage(rollout),
        WaitFormerHealthy(rollout),
        WaitQuiet(rollout),
        StopContainers(rollout),
        DumpBehindPage(rollout, dump),
        MigrateData(rollout, settings, dump),
    ]


def _before_lifting(rollout: RollOut, settings: CloudSettings) -> list[Step]:
    password = rollout.secrets.database_password
    return [EnsureCloudSettings(rollout.after, password, settings), WaitAnswering(rollout.after)]
