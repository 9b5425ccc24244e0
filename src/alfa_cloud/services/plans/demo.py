"""Plans of demo data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.playbooks.demo import disable_demo, enable_demo, restore_before_demo
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.services.demo import dump_before
from alfa_cloud.services.plans.clients import subject_of
from alfa_cloud.services.plans.plan import Maker, Plan, Tools, Work
from alfa_cloud.specs import OperationKind


async def enable(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """The demo data is in a client's database, once."""
    found = await subject_of(session, work, tools)
    if found.client.demo:
        return found.plan(Playbook([Tell("The demo data is there already")]), work)
    dump = await dump_before(session, found.client.id) or f"demo-{work.operation_id}"
    playbook = enable_demo(found.spec, dump=dump, min_free_bytes=tools.profile.min_free_bytes)
    return found.plan(playbook, work)


async def disable(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """The demo data is not in a client's database any more."""
    found = await subject_of(session, work, tools)
    if work.params.get("restore_backup"):
        playbook = restore_before_demo(
            RollOut(found.spec, found.spec, found.secrets, in_place=True),
            found.settings,
            dump=work.params["dump"],
            fresh=f"before-{work.operation_id}",
            min_free_bytes=tools.profile.min_free_bytes,
        )
        return found.plan(playbook, work)
    dump = await dump_before(session, found.client.id)
    if not found.client.demo and not dump:
        return found.plan(Playbook([Tell("There is no demo data")]), work)
    return found.plan(disable_demo(found.spec, dump=dump), work)


MAKERS: Final[Mapping[OperationKind, Maker]] = {
    OperationKind.ENABLE_DEMO: enable,
    OperationKind.DISABLE_DEMO: disable,
}
