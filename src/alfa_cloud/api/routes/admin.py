"""The administrator of this API."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import Depends
from starlette.requests import Request

from alfa_cloud.api.dependencies import CallerDep, OpenSessionDep
from alfa_cloud.api.jsonapi.body import Body, command_body
from alfa_cloud.api.routing import ApiRouter
from alfa_cloud.api.schemas.admin import CLOUD_ADMIN_EXAMPLE, CloudAdminPassword
from alfa_cloud.api.throttle import Throttle, too_many, visitor_of
from alfa_cloud.services import credentials

log = structlog.get_logger()

router = ApiRouter(tags=["administration"])


async def get_throttle(request: Request) -> Throttle:
    """What counts failed logins."""
    throttle: Throttle = request.app.state.throttle
    return throttle


AdminBody = Annotated[Body[CloudAdminPassword], command_body(CloudAdminPassword, example=CLOUD_ADMIN_EXAMPLE)]
ThrottleDep = Annotated[Throttle, Depends(get_throttle)]


@router.post("/cloud_admin_password", status_code=204)
async def change_cloud_admin_password(
    request: Request, sent: AdminBody, open_session: OpenSessionDep, throttle: ThrottleDep, caller: CallerDep
) -> None:
    """Give this API a new login and password. The old ones are refused from the answer on, in every process. A wrong
    current password counts as a failed login.
    """
    given = sent.value
    credentials.check_change(given.current_password, given.login, given.password)
    visitor = visitor_of(request.state.peer.address)
    if wait_s := await throttle.try_login(visitor):
        raise too_many(wait_s)
    await credentials.change(await open_session(), given.current_password, given.login, given.password)
    await throttle.welcome(visitor)
    log.info("admin_login_changed", address=caller.address, actor=caller.actor)
