"""Plans of what fleet commands do on a whole server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.db import DatabaseAwayError, database_is_away
from alfa_cloud.playbooks.prune_server import prune_server
from alfa_cloud.services import images
from alfa_cloud.services.plans.plan import Maker, Plan, Site, Tools, Work
from alfa_cloud.services.plans.servers import server_of
from alfa_cloud.specs import OperationKind


async def prune(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """Images that nobody needs leave a server."""
    server = await server_of(session, work)
    repository = tools.profile.app.image
    server_id = server.id

    async def needed() -> frozenset[str]:
        try:
            async with tools.sessions() as now:
                return await images.needed(now, server_id, repository)
        except Exception as error:
            if database_is_away(error):
                raise DatabaseAwayError from error
            raise

    return Plan(prune_server(repository, needed), Site.of(server))


MAKERS: Final[Mapping[OperationKind, Maker]] = {OperationKind.PRUNE_SERVER: prune}
