"""What the end of an operation means for its subject; written in the transaction of the terminal state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.models import Backup, Client, Operation, Server
from alfa_cloud.profile import Keeping, MailProfile
from alfa_cloud.services import backup_schedule, backups, letters, moves, operations, places
from alfa_cloud.services.client_specs import secret_place
from alfa_cloud.specs import ClientStatus, OperationKind, OperationState, Secret
from alfa_cloud.vault import Vault


@dataclass(frozen=True, slots=True)
class Ended:
    """An operation at its end.

    Args:
        result: what its steps reported.
        secrets: what it was given that must not be seen, where it ran.
        vault: seals what is kept of them.
        mail: how letters leave, where it ran.
        keeping: how long data is kept.
        error_code: why it did not end well.
    """

    kind: OperationKind
    state: OperationState
    operation_id: UUID
    client_id: int | None
    server_id: int | None
    params: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    vault: Vault | None = None
    mail: MailProfile = field(default_factory=MailProfile)
    keeping: Keeping = field(default_factory=Keeping)
    error_code: str = ""

    @property
    def ok(self) -> bool:
        """Whether it did what it was for."""
        return self.state is OperationState.OK

    @classmethod
    def of(cls, operation: Operation, state: OperationState) -> Self:
        """The operation of a row, ending so."""
        return cls(
            OperationKind(operation.kind),
            state,
            operation.id,
            operation.client_id,
            operation.server_id,
            operation.params,
            operation.result or {},
        )


async def apply(session: AsyncSession, ended: Ended) -> None:
    """Bring the subject's row up to what the operation left."""
    if ended.kind in OF_KIND:
        await OF_KIND[ended.kind](session, ended)


async def _creation_ended(session: AsyncSession, ended: Ended) -> None:
    if ended.ok:
        await _change_client(
            session,
            ended,
            status=ClientStatus.ACTIVE,
            activated_at=func.coalesce(Client.activated_at, func.clock_timestamp()),
            version=func.substring(Client.image_ref, "[^:]*$"),
            **AVAILABLE,
        )
        if ended.kind is OperationKind.COPY_CLIENT:
            return
        if ended.mail.success_automatically and letters.is_configured(ended.mail) and ended.client_id is not None:
            session.add(letters.automatic(OperationKind.SEND_SUCCESS, ended.client_id, {}))
        return
    client = await _client_now(session, ended)
    if client is not None and client.activated_at is None and client.status != ClientStatus.DELETING:
        client.status, client.available = ClientStatus.FAILED, False
        client.available_reason = "the creation failed"


async def _deletion_ended(session: AsyncSession, ended: Ended) -> None:
    """A client is gone, or `deleting` while it is partly so or its server is away, or what it was before."""
    client = await _client_now(session, ended)
    if client is None:
        return
    if client.activated_at is None:
        if ended.ok:
            await session.delete(client)
        elif ended.state is OperationState.CANCELLED:
            created = await _is_being_created(session, client)
            client.status = ClientStatus.CREATING if created else ClientStatus.FAILED
        return
    removing = bool(ended.result.get("removing"))
    if removing:
        await _backed_up(session, ended)
    if ended.ok:
        await backups.archived(session, client)
    elif not (removing or ended.error_code in AWAY or await _is_going(session, ended)):
        client.status = ClientStatus.EXPIRED if client.blocked else ClientStatus.ACTIVE
        if ended.result.get("page_shown"):
            client.maintenance = True


async def _is_going(session: AsyncSession, ended: Ended) -> bool:
    """Whether a client goes beside this deletion: an earlier one has begun to remove it, or another one waits."""
    if ended.client_id is not None and await backups.final_backup(session, ended.client_id) is not None:
        return True
    without_archive = Operation.params["keep_archive"].as_boolean().is_(False)
    begun = and_(without_archive, Operation.result["removing"].as_boolean().is_(True))
    others = select(Operation.id).where(
        Operation.client_id == ended.client_id,
        Operation.kind == OperationKind.DELETE_CLIENT,
        Operation.id != ended.operation_id,
        or_(Operation.state.in_(operations.UNFINISHED), begun),
    )
    return await session.scalar(others.limit(1)) is not None


async def _backed_up(session: AsyncSession, ended: Ended) -> None:
    """A back-up that the operation made, and kept, is known."""
    told = ended.result.get("backup")
    if told and ended.client_id is not None and ended.server_id is not None:
        row = Backup(id=ended.operation_id, client_id=ended.client_id, server_id=ended.server_id, **told)
        await backups.record(session, row, ended.keeping)


async def _backup_made(session: AsyncSession, ended: Ended) -> None:
    if ended.ok:
        await _backed_up(session, ended)


async def _backup_restored(session: AsyncSession, ended: Ended) -> None:
    """The back-up of the time before is known where it was kept: always but where all was taken back."""
    if ended.ok or ended.result.get("page_shown"):
        await _backed_up(session, ended)
    if ended.ok:
        await _change_client(session, ended, migration_pending=False, **AVAILABLE)
    elif ended.result.get("page_shown"):
        await _change_client(session, ended, maintenance=True)


async def _backup_removed(session: AsyncSession, ended: Ended) -> None:
    if ended.ok and ended.client_id is not None:
        await backup_schedule.removed(session, ended.client_id, UUID(ended.params["backup_id"]))


async def _backup_proven(session: AsyncSession, ended: Ended) -> None:
    if ended.client_id is not None:
        backup_id = UUID(ended.params["backup_id"])
        await backup_schedule.proven(session, ended.client_id, backup_id, ended.result, ok=ended.ok)


async def _came_back(session: AsyncSession, ended: Ended) -> None:
    """A deleted client lives again, or is an archive as before."""
    client = await _client_now(session, ended)
    if client is None:
        return
    if not ended.ok:
        client.status, client.port, client.spare_port = ClientStatus.ARCHIVED, None, None
        return
    client.status = ClientStatus.EXPIRED if client.blocked else ClientStatus.ACTIVE
    await _change_client(session, ended, **AVAILABLE)
    await backups.archive_was_used(session, client.id, ended.keeping)


async def _client_now(session: AsyncSession, ended: Ended) -> Client | None:
    """The client as it is at this moment; no other end changes it before this one is committed."""
    return await session.get(Client, ended.client_id, with_for_update=True, populate_existing=True)


async def _is_being_created(session: AsyncSession, client: Client) -> bool:
    creation = select(Operation.id).where(
        Operation.client_id == client.id,
        Operation.kind.in_((OperationKind.CREATE_CLIENT, OperationKind.COPY_CLIENT)),
        Operation.state.in_(operations.UNFINISHED),
    )
    return bool(await session.scalar(select(creation.exists())))


async def _server_was_checked(session: AsyncSession, ended: Ended) -> None:
    """What a look at the server found is known; nothing where it could not be asked."""
    found = ended.result.get("requirements")
    if found is not None:
        values = {"requirements": found, "requirements_ok": all(row["ok"] or not row["required"] for row in found)}
        await session.execute(update(Server).where(Server.id == ended.server_id).values(**values))


async def _images_changed(session: AsyncSession, ended: Ended) -> None:
    """The server's images are known as they were at the end, so that a channel means its newest at once."""
    found = ended.result.get("images")
    if ended.ok and found is not None:
        values = {"images": found, "images_at": func.clock_timestamp()}
        await session.execute(update(Server).where(Server.id == ended.server_id).values(**values))


async def _maintenance_changed(session: AsyncSession, ended: Ended) -> None:
    if not ended.ok:
        return
    on = ended.kind is OperationKind.ENABLE_MAINTENANCE
    until = ended.params.get("ends_at") if on else None
    await _change_client(
        session,
        ended,
        maintenance=on,
        maintenance_text=(ended.params.get("page_text") or "") if on else "",
        maintenance_ends_at=datetime.fromisoformat(until) if until else None,
    )


async def _owner_password_changed(session: AsyncSession, ended: Ended) -> None:
    """It replaces the one that is kept for the letter; where none is kept any more, none is."""
    client = await session.get(Client, ended.client_id, with_for_update=True)
    if ended.ok and ended.vault is not None and client is not None and client.owner_password is not None:
        client.owner_password = ended.vault.seal(ended.secrets["password"], secret_place("owner_password", client))


async def _success_sent(session: AsyncSession, ended: Ended) -> None:
    """The first password is forgotten once a letter with it has left; a new one is kept until its letter leaves."""
    client = await session.get(Client, ended.client_id, with_for_update=True)
    if client is None:
        return
    new = bool(ended.params.get("new_password"))
    if ended.ok:
        client.success_sent_at = func.clock_timestamp()
        if new or ended.result.get("password_mark") == letters.password_mark(client):
            client.owner_password = None
    elif new and ended.result.get("password_set") and ended.vault is not None:
        password = letters.new_password_of(ended.operation_id, ended.vault)
        client.owner_password = ended.vault.seal(password, secret_place("owner_password", client))


async def _demo_changed(session: AsyncSession, ended: Ended) -> None:
    if ended.ok:
        await _change_client(session, ended, demo=ended.kind is OperationKind.ENABLE_DEMO)


async def _expiry_arrived(session: AsyncSession, ended: Ended) -> None:
    """The client is blocked, or is not any more, as its server was told."""
    if not ended.ok:
        return
    blocked = bool(ended.result["blocked"])
    await _change_client(session, ended, blocked=blocked)
    await session.execute(
        update(Client)
        .where(Client.id == ended.client_id, Client.status.in_((ClientStatus.ACTIVE, ClientStatus.EXPIRED)))
        .values(status=ClientStatus.EXPIRED if blocked else ClientStatus.ACTIVE)
    )


async def _rolled_out(session: AsyncSession, ended: Ended) -> None:
    """The client is what nginx serves now, also where the operation failed past its point of no return."""
    client = await session.get(Client, ended.client_id, with_for_update=True)
    if client is None:
        return
    moved = ended.result.get("slot", client.slot) != client.slot
    if moved:
        client.slot = ended.result["slot"]
        client.port, client.spare_port = client.spare_port, client.port
    reference = ended.params.get("image_ref") or client.image_ref
    if reference != client.image_ref and (ended.ok or moved):
        client.former_image_ref = client.image_ref
        client.image_ref, client.version = reference, reference.rpartition(":")[2]
        client.migration_pending = True
    if ended.ok or moved:
        client.image = ended.params.get("image") or client.image
    await _migrated(session, ended)
    if ended.ok and client.activated_at is not None:
        await _change_client(session, ended, **AVAILABLE)


async def _migrated(session: AsyncSession, ended: Ended) -> None:
    """The database has its version's tables, or has not; a page that had to stay is known as maintenance."""
    if ended.result.get("migrated"):
        await _change_client(session, ended, migration_pending=False)
    if not ended.ok and ended.result.get("page_shown"):
        await _change_client(session, ended, maintenance=True)


async def _moved(session: AsyncSession, ended: Ended) -> None:
    """The client is where its row says; the row itself was changed in the middle, at one moment."""
    if ended.client_id is None:
        return
    moved = bool(ended.result.get("moved"))
    await moves.arrived(session, ended.client_id, ended.params["server_id"], moved=moved)
    if not moved and ended.result.get("page_shown"):
        await _change_client(session, ended, maintenance=True)
    if ended.ok:
        await _change_client(session, ended, **AVAILABLE)


async def _place_cleared(session: AsyncSession, ended: Ended) -> None:
    if ended.ok and ended.client_id is not None and ended.server_id is not None:
        if ended.result.get("cleared") == "data":
            await places.data_is_gone(session, ended.client_id, ended.server_id)
        elif ended.result.get("cleared") == "all":
            await places.forget(session, ended.client_id, ended.server_id)


async def _change_client(session: AsyncSession, ended: Ended, **values: Any) -> None:
    await session.execute(update(Client).where(Client.id == ended.client_id).values(**values))


AVAILABLE: Final[dict[str, Any]] = {
    "available": True,
    "available_at": func.clock_timestamp(),
    "available_reason": "",
}
"""What a client is whose playbook ended with a look from outside."""

OF_KIND: Final[Mapping[OperationKind, Callable[[AsyncSession, Ended], Awaitable[None]]]] = {
    OperationKind.CREATE_CLIENT: _creation_ended,
    OperationKind.COPY_CLIENT: _creation_ended,
    OperationKind.DELETE_CLIENT: _deletion_ended,
    OperationKind.ENABLE_MAINTENANCE: _maintenance_changed,
    OperationKind.DISABLE_MAINTENANCE: _maintenance_changed,
    OperationKind.SET_OWNER_PASSWORD: _owner_password_changed,
    OperationKind.SET_EXPIRE_DATE: _expiry_arrived,
    OperationKind.SEND_SUCCESS: _success_sent,
    OperationKind.ENABLE_DEMO: _demo_changed,
    OperationKind.DISABLE_DEMO: _demo_changed,
    OperationKind.SWITCH_CLIENT: _rolled_out,
    OperationKind.DEPLOY_CLIENT: _rolled_out,
    OperationKind.UPDATE_CLIENT: _rolled_out,
    OperationKind.MIGRATE_CLIENT: _rolled_out,
    OperationKind.BACK_UP_CLIENT: _backup_made,
    OperationKind.RESTORE_BACKUP: _backup_restored,
    OperationKind.REMOVE_BACKUP: _backup_removed,
    OperationKind.PROVE_BACKUP: _backup_proven,
    OperationKind.RESTORE_CLIENT: _came_back,
    OperationKind.MOVE_CLIENT: _moved,
    OperationKind.UNDO_MOVE: _moved,
    OperationKind.CLEAR_PLACE: _place_cleared,
    OperationKind.PREPARE_SERVER: _server_was_checked,
    OperationKind.PROVISION_SERVER: _server_was_checked,
    OperationKind.BUILD_IMAGE: _images_changed,
    OperationKind.PRUNE_SERVER: _images_changed,
}


AWAY: Final = frozenset({"server_unreachable", "connection_lost", "host_key_changed", "login_refused"})
"""Why a server could not be asked: a deletion is tried again until it can."""

STATUS_MEANWHILE: Final = {
    OperationKind.CREATE_CLIENT: ClientStatus.CREATING,
    OperationKind.COPY_CLIENT: ClientStatus.CREATING,
    OperationKind.DELETE_CLIENT: ClientStatus.DELETING,
    OperationKind.MOVE_CLIENT: ClientStatus.MOVING,
    OperationKind.UNDO_MOVE: ClientStatus.MOVING,
    OperationKind.RESTORE_CLIENT: ClientStatus.RESTORING,
}


async def restart(session: AsyncSession, kind: OperationKind, operation_id: UUID, client_id: int | None) -> None:
    """The subject is again what it is while this operation runs."""
    if client_id is None:
        return
    values: dict[str, Any] = {"operation_id": operation_id}
    if kind in STATUS_MEANWHILE:
        values["status"] = STATUS_MEANWHILE[kind]
    await session.execute(update(Client).where(Client.id == client_id).values(**values))
