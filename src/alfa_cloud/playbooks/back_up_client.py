"""A client's back-up is made while it works, put in the place of its data, and removed."""

from __future__ import annotations

from collections.abc import Sequence

from alfa_cloud.playbooks.playbook import Held, Playbook, Step
from alfa_cloud.playbooks.steps.backup import DropOnFailure, FetchBackup, RemoveBackup, ReplaceData, SealBackup
from alfa_cloud.playbooks.steps.client import (
    EnsureCloudSettings,
    EnsureComposeFile,
    EnsureContainer,
    WaitHealthy,
)
from alfa_cloud.playbooks.steps.data import CheckDumpSpace, EnsureDump
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.playbooks.steps.image import EnsureImage
from alfa_cloud.playbooks.steps.migration import CheckSpace, LiftPage, MigrateAlone, ShowPage, WaitQuiet
from alfa_cloud.playbooks.steps.move import StopClient
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.playbooks.steps.server import CheckOwnership
from alfa_cloud.playbooks.steps.tree_archive import EnsureFilesArchive
from alfa_cloud.playbooks.steps.web import WaitAnswering
from alfa_cloud.remote import compose
from alfa_cloud.specs import ClientSpec, CloudSettings


def archive(spec: ClientSpec, name: str, reason: str, *, frozen: bool, rollout: RollOut | None = None) -> list[Step]:
    """A verified dump and an archive of the files are side by side on the server, and measured."""
    return [
        DropOnFailure(spec, name, rollout),
        EnsureDump(spec, name, reason, frozen=frozen),
        EnsureFilesArchive(spec, name, frozen=frozen),
        SealBackup(spec, name, reason),
    ]


def back_up_client(spec: ClientSpec, *, name: str, reason: str, min_free_bytes: int) -> Playbook:
    """A back-up is there; the client works on meanwhile."""
    return Playbook(
        [
            CheckOwnership(spec),
            CheckDumpSpace(spec, name, min_free_bytes),
            *archive(spec, name, reason, frozen=False),
        ]
    )


def restore_backup(
    rollout: RollOut, settings: CloudSettings, *, backup: FetchBackup, fresh: str, min_free_bytes: int
) -> Playbook:
    """The client's data is what a back-up holds; a back-up of the present is kept. A failure leaves the present.

    Args:
        settings: what the client's database is to say of itself.
        fresh: the name of the back-up that is made before.
    """
    spec = rollout.before
    steps: list[Step] = [
        CheckOwnership(spec),
        CheckSpace(CheckDumpSpace(spec, fresh, min_free_bytes)),
        backup,
        ShowPage(rollout),
        WaitQuiet(rollout),
        StopClient(rollout),
        *archive(spec, fresh, "restore", frozen=True, rollout=rollout),
        ReplaceData(rollout, settings, backup.name, fresh),
        EnsureComposeFile(spec, rollout.secrets),
        MigrateAlone(rollout),
        EnsureContainer(spec, compose.label_of(spec, rollout.secrets)),
        WaitHealthy(spec),
        EnsureCloudSettings(spec, rollout.secrets.database_password, settings),
        WaitAnswering(spec),
    ]
    return Playbook([*steps, LiftPage(rollout), *_drop_copy(backup)], no_return=len(steps))


def _drop_copy(backup: FetchBackup) -> list[Step]:
    """What was brought from another server is not needed here any more."""
    return [RemoveBackup(backup.spec, backup.name)] if backup.source else []


def remove_backup(spec: ClientSpec, name: str) -> Playbook:
    """A back-up is gone."""
    return Playbook([RemoveBackup(spec, name)], undo_on_failure=False)


def archive_client(
    rollout: RollOut, *, name: str, removal: Sequence[Step], min_free_bytes: int, archived: bool
) -> Playbook:
    """The client is gone from every server, and its archive is kept; a failure before the first removal takes nothing.

    Args:
        name: the archive's.
        removal: takes the client from all servers that it ever stood on.
        archived: whether the archive was made before this plan was.
    """
    spec = rollout.before
    before: list[Step] = [
        CheckOwnership(spec),
        CheckDumpSpace(spec, name, min_free_bytes),
        ShowPage(rollout),
        WaitQuiet(rollout),
        StopClient(rollout),
        *archive(spec, name, "final", frozen=True),
    ]
    return remove_client(removal, [Held(step) for step in before] if archived else before)


def remove_client(removal: Sequence[Step], before: Sequence[Step] = ()) -> Playbook:
    """The client is gone from every server; once that was begun, only forward."""
    begin = Tell("From here on the client is taken away", {"removing": True})
    return Playbook([*before, begin, *removal], no_return=len(before))


def restore_client(create: Playbook, *, image: EnsureImage, backup: FetchBackup, data: ReplaceData) -> Playbook:
    """A deleted client comes back to life with the data of its archive; a failure leaves nothing but the archive.

    Args:
        create: what brings a client to life; the data come in before its container starts.
    """
    check, *steps = create.steps
    start = next(place for place, step in enumerate(steps) if isinstance(step, EnsureContainer))
    login = next(step for step in steps if isinstance(step, EnsureCloudSettings))
    data_first: list[Step] = [image, check, *steps[:start], login, backup, data]
    return Playbook([*data_first, *steps[start:], *_drop_copy(backup)])
