"""Plans of back-ups, of deletions, and of the way back from an archive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import BackupNotFoundError
from alfa_cloud.models import Backup, Operation, Server
from alfa_cloud.playbooks.back_up_client import (
    archive_client,
    back_up_client,
    remove_backup,
    remove_client,
    restore_backup,
    restore_client,
)
from alfa_cloud.playbooks.create_client import create_client
from alfa_cloud.playbooks.delete_client import delete_unborn_client, removal
from alfa_cloud.playbooks.playbook import Elsewhere, Step
from alfa_cloud.playbooks.prove_backup import prove_backup
from alfa_cloud.playbooks.steps.backup import FetchBackup, ReplaceData
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.services import backups, places
from alfa_cloud.services.client_specs import client_spec
from alfa_cloud.services.plans.clients import Subject, certbot_of, subject_of
from alfa_cloud.services.plans.moves import at
from alfa_cloud.services.plans.plan import Maker, Plan, Site, Tools, Work
from alfa_cloud.services.plans.rollout import image_from
from alfa_cloud.specs import OperationKind, Secret


async def back_up(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client's back-up is made."""
    found = await subject_of(session, work, tools)
    reason = work.params.get("reason", "command")
    playbook = back_up_client(found.spec, name=_name(work), reason=reason, min_free_bytes=tools.profile.min_free_bytes)
    return found.plan(playbook, work)


async def restore(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client's data is what a back-up holds."""
    found = await subject_of(session, work, tools)
    playbook = restore_backup(
        _rollout(found),
        found.settings,
        backup=await _fetch(session, work, tools, found),
        fresh=_name(work),
        min_free_bytes=tools.profile.min_free_bytes,
    )
    return found.plan(playbook, work)


async def delete(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A client is gone from every server; one that has lived leaves an archive."""
    found = await subject_of(session, work, tools)
    if found.client.activated_at is None:
        return found.plan(delete_unborn_client(found.spec, found.secrets), work)
    steps = [*removal(found.spec, found.secrets), *await _elsewhere(session, found, tools)]
    if work.params.get("keep_archive") is False:
        return found.plan(remove_client(steps), work)
    playbook = archive_client(
        _rollout(found),
        name=_name(work),
        removal=steps,
        min_free_bytes=tools.profile.min_free_bytes,
        archived=await _archived(session, work),
    )
    return found.plan(playbook, work)


async def bring_back(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A deleted client comes back to life from its archive."""
    found = await subject_of(session, work, tools)
    create = create_client(
        found.spec,
        replace(found.secrets, owner_password=None),  # the owner has the password that the archive knows
        found.settings,
        min_free_bytes=tools.profile.min_free_bytes,
        **certbot_of(tools),
    )
    backup = await _fetch(session, work, tools, found)
    data = ReplaceData(_rollout(found), found.settings, backup.name)
    image = await image_from(session, tools, found.spec.image, found.server.id)
    return found.plan(restore_client(create, image=image, backup=backup, data=data), work)


async def remove(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A back-up is gone.

    Raises:
        BackupNotFoundError: it is not known.
    """
    found, backup = await _where_it_lies(session, work, tools)
    return found.plan(remove_backup(found.spec, backup.name), work)


async def prove(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A back-up is known as whole, or as damaged.

    Raises:
        BackupNotFoundError: it is not known.
    """
    found, backup = await _where_it_lies(session, work, tools)
    password = Secret(tools.vault.digest(f"proof.{work.operation_id}".encode()).hex())
    playbook = prove_backup(
        found.spec,
        password,
        name=backup.name,
        sha256=backup.sha256,
        size_bytes=backup.size_bytes,
        min_free_bytes=tools.profile.min_free_bytes,
    )
    plan = found.plan(playbook, work)
    return replace(plan, secrets=(*plan.secrets, password))


def _name(work: Work) -> str:
    return f"backup-{work.operation_id}"


def _rollout(found: Subject) -> RollOut:
    return RollOut(found.spec, found.spec, found.secrets, in_place=True)


async def _backup(session: AsyncSession, work: Work) -> Backup:
    backup = await session.get(Backup, UUID(work.params["backup_id"]))
    if backup is None:
        raise BackupNotFoundError("The operation's back-up is gone.")
    return backup


async def _where_it_lies(session: AsyncSession, work: Work, tools: Tools) -> tuple[Subject, Backup]:
    """A back-up, and its client as it is on the server of that, wherever the client stands by now."""
    backup = await _backup(session, work)
    return await subject_of(session, replace(work, server_id=backup.server_id), tools), backup


async def _fetch(session: AsyncSession, work: Work, tools: Tools, found: Subject) -> FetchBackup:
    backup = await _backup(session, work)
    step = FetchBackup(found.spec, backup.name, backup.sha256, backup.size_bytes)
    if backup.server_id == work.server_id:
        return step
    server = await session.get_one(Server, backup.server_id)
    where = Elsewhere(server.name, tools.open_host(Site.of(server)))
    return replace(step, source=where, source_spec=client_spec(found.client, server, tools.profile.app))


async def _elsewhere(session: AsyncSession, found: Subject, tools: Tools) -> list[Step]:
    """What takes a client from the servers that are not its own."""
    steps: list[Step] = []
    for place in await places.of_client(session, found.client.id):
        server = await session.get_one(Server, place.server_id)
        where = Elsewhere(server.name, tools.open_host(Site.of(server)))
        spec = at(client_spec(found.client, server, tools.profile.app), place)
        steps += [where.on(step) for step in removal(spec, found.secrets)]
    return steps


async def _archived(session: AsyncSession, work: Work) -> bool:
    """Whether an attempt at this deletion, or an earlier deletion, has made the archive and begun to remove."""
    if work.client_id is not None and await backups.final_backup(session, work.client_id) is not None:
        return True
    if work.operation_id is None:
        return False
    told: Mapping[str, Any] = (
        await session.scalar(select(Operation.result).where(Operation.id == work.operation_id)) or {}
    )
    return bool(told.get("removing"))


MAKERS: Final[Mapping[OperationKind, Maker]] = {
    OperationKind.BACK_UP_CLIENT: back_up,
    OperationKind.RESTORE_BACKUP: restore,
    OperationKind.DELETE_CLIENT: delete,
    OperationKind.RESTORE_CLIENT: bring_back,
    OperationKind.REMOVE_BACKUP: remove,
    OperationKind.PROVE_BACKUP: prove,
}
