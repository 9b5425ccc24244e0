"""Plans of operations on images."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.playbooks.build_image import build_image
from alfa_cloud.profile import Branch
from alfa_cloud.remote.build import BuildSpec
from alfa_cloud.services.builds import deploy_key
from alfa_cloud.services.plans.plan import Maker, Plan, Site, Tools, Work
from alfa_cloud.services.plans.servers import server_of
from alfa_cloud.specs import OperationKind


async def build(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """A branch's commit becomes an image.

    Raises:
        SourceNotConfiguredError: the settings name no repository any more, or its key cannot be read.
    """
    server = await server_of(session, work)
    profile = tools.profile
    key = await deploy_key(profile.source)
    spec = BuildSpec(
        operation_id=str(work.operation_id),
        branch=Branch(work.params["branch"]),
        commit=work.params["commit"],
        repository=profile.app.image,
        built_at=datetime.now(UTC),
        source=profile.source,
        layout=server.layout_spec,
    )
    return Plan(build_image(spec, key, min_free_bytes=profile.min_free_bytes), Site.of(server), (key,))


MAKERS: Final[Mapping[OperationKind, Maker]] = {OperationKind.BUILD_IMAGE: build}
