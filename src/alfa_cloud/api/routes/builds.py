"""Builds of images on a server."""

from __future__ import annotations

from alfa_cloud.api.caller import Caller
from alfa_cloud.api.dependencies import CallerDep, IntId, OpenSession, OpenSessionDep
from alfa_cloud.api.routing import ApiRouter, command
from alfa_cloud.api.schemas.operations import OperationDocument
from alfa_cloud.api.schemas.plans import COMMANDED, PlanDocument
from alfa_cloud.api.state import Ask, CommandDep
from alfa_cloud.profile import Branch
from alfa_cloud.services import builds, servers
from alfa_cloud.services.plans.plan import Site

router = ApiRouter(tags=["images"])

Answer = OperationDocument | PlanDocument


@command(router, "/containers/{server_id}/build_dev", responses=COMMANDED)
async def build_dev(server_id: IntId, open_session: OpenSessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Build an image `VERSION-dev` from the branch dev's present commit; minutes. The version is `git describe --tags`.

    The same commit is not built twice: its image is the result, with `built: false`. A version that is another
    commit's already is refused, `version_taken`.
    """
    return await _build(server_id, Branch.DEV, open_session, caller, ask)


@command(router, "/containers/{server_id}/build_prod", responses=COMMANDED)
async def build_prod(server_id: IntId, open_session: OpenSessionDep, caller: CallerDep, ask: CommandDep) -> Answer:
    """Build an image `VERSION-master` from the branch master's present commit; minutes. See `build_dev`."""
    return await _build(server_id, Branch.MASTER, open_session, caller, ask)


async def _build(server_id: int, branch: Branch, open_session: OpenSession, caller: Caller, ask: Ask) -> Answer:
    services = ask.services
    async with services.sessions() as session:
        server = await servers.get_server(session, server_id)
        site = Site.of(server)
    async with servers.shutting_off(services.sessions, site.address):
        commit = await builds.look_at_branch(services.look_at(site), services.profile.source, branch)
    session = await open_session()
    return await ask.command(session, builds.request(session, server_id, branch, commit, caller))
