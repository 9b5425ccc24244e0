"""What plans are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import HostKeyChangedError
from alfa_cloud.models import Operation, Server
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.profile import Profile
from alfa_cloud.remote.host import Host
from alfa_cloud.services.operations import Claim, open_secrets
from alfa_cloud.specs import Address, Layout, OperationKind, Secret
from alfa_cloud.vault import Vault


@dataclass(frozen=True, slots=True)
class Site:
    """The server that a playbook runs on."""

    address: Address
    layout: Layout

    @classmethod
    def of(cls, server: Server) -> Self:
        """That of a server.

        Raises:
            HostKeyChangedError: the server is shut off until its key is pinned anew.
        """
        if server.host_key_changed:
            raise HostKeyChangedError(f"{server.name} showed another host key than the pinned one.")
        return cls(server.address, server.layout_spec)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operation is to do, and where; without a site it does nothing on a server."""

    playbook: Playbook
    site: Site | None
    secrets: tuple[Secret, ...] = ()
    """What must not be seen in the log."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """What a preview says beside the steps; no secret."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be planned.

    Args:
        operation_id: None where nothing is to be done, only shown.
        secrets: the sealed parameters, opened.
    """

    kind: OperationKind
    operation_id: UUID | None
    client_id: int | None
    server_id: int | None
    params: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Claim | Operation, vault: Vault) -> Self:
        """That of an operation."""
        operation_id = row.operation_id if isinstance(row, Claim) else row.id
        secrets = open_secrets(row.secrets, operation_id, vault)
        return cls(OperationKind(row.kind), operation_id, row.client_id, row.server_id, row.params, secrets)


Keep = Callable[[Callable[[AsyncSession], Awaitable[None]]], Awaitable[None]]


async def nothing_is_kept(change: Callable[[AsyncSession], Awaitable[None]]) -> None:
    """Refuse: this plan is only for looking."""
    raise TypeError(f"{change} is not for a plan that is only shown")


@dataclass(frozen=True, slots=True)
class Tools:
    """What making a plan takes beside the rows.

    Args:
        open_host: another server than the plan's own, with the same journal; connects when it is used.
        keep: a change of rows in the middle of a playbook, in one transaction, while this worker still holds the
            operation; where nothing is to be done, only shown, it refuses.
    """

    sessions: SessionFactory
    vault: Vault
    profile: Profile
    open_host: Callable[[Site], Host]
    keep: Keep = nothing_is_kept


Maker = Callable[[AsyncSession, Work, Tools], Awaitable[Plan]]
