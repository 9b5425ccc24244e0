"""The children of fleet commands: which operation does which target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.errors import ClientStateError
from alfa_cloud.models import Client, Operation
from alfa_cloud.services import client_commands, clients, operations, servers
from alfa_cloud.services.fleet_course import Row
from alfa_cloud.services.operations import Caller
from alfa_cloud.specs import OperationKind

OF_CLIENTS: Final[Mapping[str, OperationKind]] = {
    OperationKind.SWITCH_ALL: OperationKind.SWITCH_CLIENT,
    OperationKind.MIGRATE_ALL: OperationKind.MIGRATE_CLIENT,
    OperationKind.DEPLOY: OperationKind.DEPLOY_CLIENT,
    OperationKind.ENABLE_MAINTENANCE_ALL: OperationKind.ENABLE_MAINTENANCE,
    OperationKind.DISABLE_MAINTENANCE_ALL: OperationKind.DISABLE_MAINTENANCE,
}
OF_SERVERS: Final[Mapping[str, OperationKind]] = {
    OperationKind.PRUNE: OperationKind.PRUNE_SERVER,
    OperationKind.DEPLOY: OperationKind.PREPARE_SERVER,
}

ROLL_OUTS: Final = (OperationKind.SWITCH_CLIENT, OperationKind.DEPLOY_CLIENT)
"""Kinds that start a second container beside the first."""


async def ask(session: AsyncSession, parent: Operation, row: Row) -> Operation:
    """The operation on one target of a fleet command.

    Raises:
        AlfaCloudError: it is not allowed now.
    """
    caller = Caller(parent.actor, parent.request_id)
    if row.client_id is None:
        server = await servers.get_server(session, int(row.server_id))
        operation, _ = await operations.request(
            session, OF_SERVERS[parent.kind], caller, server_id=server.id, exclusive=True, parent_id=parent.id
        )
        return operation
    client = await clients.get_client(session, int(row.client_id), lock=True)
    if client.server_id != int(row.server_id):
        raise ClientStateError(f"{client.name} is on another server now.")
    kind = OF_CLIENTS[parent.kind]
    if kind in ROLL_OUTS:
        await clients.reserve_spare_port(session, client)
    return await client_commands.request(
        session, client.id, kind, caller, params=child_params(parent, client), parent_id=parent.id
    )


def child_params(parent: Operation, client: Client) -> dict[str, Any]:
    """What a client's operation is given: what all get, and in a deployment its own image."""
    params = dict(parent.params.get("child", {}))
    if parent.kind == OperationKind.DEPLOY:
        params |= parent.params["channels"].get(client.image) or {"image_ref": client.image_ref}
    return params
