"""The plan that brings a client's last day of use to its server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from alfa_cloud.playbooks.client_commands import change_page
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.services import expiry, operations
from alfa_cloud.services.client_specs import with_settings
from alfa_cloud.services.plans.clients import Subject, subject_of
from alfa_cloud.services.plans.plan import Maker, Plan, Tools, Work
from alfa_cloud.specs import ClientSpec, OperationKind, PageKind


async def set_expire_date(session: AsyncSession, work: Work, tools: Tools) -> Plan:
    """The client's database knows its last day; from the day after it, where that blocks, its page stands for it."""
    found = await subject_of(session, work, tools)
    day = expiry.today(await operations.database_now(session), tools.profile.zone)
    last = found.client.expire_date
    blocked = tools.profile.block_expired and expiry.is_over(last, day)
    after = under_page(found, blocked=blocked)
    new = with_settings(found.settings, blocked="1" if blocked else "0")
    words = "The client has no last day" if last is None else f"The last day is {last}"
    told = Tell(f"{words}: it is {'blocked' if blocked else 'not blocked'}", {"blocked": blocked})
    return found.plan(change_page(found.spec, after, found.secrets, found.settings, new, first=[told]), work)


def under_page(found: Subject, *, blocked: bool) -> ClientSpec:
    """The client under the page that is to stand for it; an ended term goes before maintenance."""
    client = found.client
    if blocked or not client.maintenance:
        return replace(found.spec, page=PageKind.EXPIRED if blocked else None, page_text="", page_ends_at="")
    until = client.maintenance_ends_at
    return replace(
        found.spec,
        page=PageKind.MAINTENANCE,
        page_text=client.maintenance_text,
        page_ends_at=until.isoformat() if until else "",
    )


MAKERS: Final[Mapping[OperationKind, Maker]] = {OperationKind.SET_EXPIRE_DATE: set_expire_date}
