"""What the application holds for its endpoints, beside the database: connections, keys, settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from alfa_cloud.api.after import AfterCommit, Ending
from alfa_cloud.api.dependencies import AfterDep
from alfa_cloud.api.schemas.operations import OperationDocument, operation_resource
from alfa_cloud.api.schemas.plans import PlanDocument, plan_document
from alfa_cloud.db import SessionFactory
from alfa_cloud.events import Listener
from alfa_cloud.models import Operation
from alfa_cloud.profile import Profile
from alfa_cloud.remote.host import Host
from alfa_cloud.remote.look import Facts, host_to_look_at
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.services import operation_views
from alfa_cloud.services.container_log import Followers
from alfa_cloud.services.plans.plan import Site, Tools
from alfa_cloud.services.plans.preview import Preview, look, preview
from alfa_cloud.vault import Vault

MAX_WAIT_S = 300


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that services take beside a session."""

    sessions: SessionFactory
    listener: Listener
    pool: SshPool
    vault: Vault
    profile: Profile
    followers: Followers = field(default_factory=Followers)

    @property
    def repository(self) -> str:
        """The app's images' name."""
        return self.profile.app.image

    @property
    def tools(self) -> Tools:
        """What making a plan takes; its hosts are for looking only."""
        return Tools(self.sessions, self.vault, self.profile, self.look_at)

    def look_at(self, site: Site, facts: Facts | None = None) -> Host:
        """A server, for a bounded look."""
        return host_to_look_at(self.pool, site.address, site.layout, facts)


async def get_services(request: Request) -> Services:
    """What the lifespan made."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]
WaitS = Annotated[
    int | None,
    Query(ge=0, le=MAX_WAIT_S, description="Wait for the end up to so many seconds; 200 once it has ended."),
]


DryRun = Annotated[bool, Query(description="Answer the plan, and do nothing.")]


@dataclass(frozen=True, slots=True)
class Ask:
    """Answers a command: 202 with its operation, and the bell after the commit."""

    services: Services
    after: AfterCommit
    response: Response
    wait_s: int | None
    dry_run: bool = False

    async def command(self, session: AsyncSession, request: Awaitable[Operation]) -> OperationDocument | PlanDocument:
        """The answer of a command: its operation, or with `dry_run` its plan, and nothing is kept of it.

        Args:
            request: asks for the operation, with all checks.
        """
        if not self.dry_run:
            return await self.accepted(session, await request)
        self.response.status_code = 200
        async with session.begin_nested() as savepoint:
            found = await preview(session, await request, self.services.tools)
            await savepoint.rollback()
        if found.site is not None and found.checks:
            self.after.wait(lambda: self._looked(found))
        return plan_document(found)

    async def _looked(self, found: Preview) -> Ending:
        """The plan with what its checks find on the server; no session is open meanwhile."""
        facts = Facts()
        site = found.site
        blocks = () if site is None else await look(found, self.services.look_at(site, facts))
        return 200, plan_document(replace(found, blocks=blocks, extra={**found.extra, **facts.found}))

    async def accepted(self, session: AsyncSession, operation: Operation) -> OperationDocument:
        """The operation's document, with its address; after `wait_s`, 200 with its end, if it has ended by then."""
        self.response.headers["Location"] = self.response.headers["Content-Location"] = f"/operations/{operation.id}"
        self.follow(operation.id, lambda: self._ended(operation.id))
        return document(*await operation_views.views(session, [operation]))

    def follow(self, operation_id: UUID, ending: Callable[[], Awaitable[Ending | None]]) -> None:
        """Ring for an operation after the commit, and wait for `ending` if the request wants that."""
        self.after.wake(operation_id)
        if self.wait_s:
            self.after.wait(ending)

    async def ended(self, operation_id: UUID) -> bool:
        """Whether the operation ended within the time that the request gives."""
        return await operation_views.wait_for_end(
            self.services.sessions, self.services.listener, operation_id, self.wait_s or 0
        )

    async def _ended(self, operation_id: UUID) -> Ending | None:
        if not await self.ended(operation_id):
            return None
        async with self.services.sessions() as session:
            operation = await operation_views.get_operation(session, operation_id)
            return 200, document(*await operation_views.views(session, [operation]))


def document(view: operation_views.OperationView) -> OperationDocument:
    """The document of one operation."""
    return OperationDocument.of(operation_resource(view))


async def get_ask(services: ServicesDep, after: AfterDep, response: Response, wait_s: WaitS = None) -> Ask:
    """What a change answers with."""
    return Ask(services, after, response, wait_s)


async def get_command(
    services: ServicesDep, after: AfterDep, response: Response, wait_s: WaitS = None, dry_run: DryRun = False
) -> Ask:
    """What a command answers with."""
    return Ask(services, after, response, wait_s, dry_run)


AskDep = Annotated[Ask, Depends(get_ask)]
CommandDep = Annotated[Ask, Depends(get_command)]
