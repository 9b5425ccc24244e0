"""What operations are going to do, by the rows and the settings as they are now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from alfa_cloud.config import Settings
from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import ClientStateError
from alfa_cloud.playbooks.playbook import name_of
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.profile import Profile
from alfa_cloud.services.plans.make import make_plan
from alfa_cloud.services.plans.plan import Tools, Work
from alfa_cloud.specs import AppProfile, OperationKind
from alfa_cloud.vault import Vault, new_key
from tests.factories import make_client, make_server
from tests.fakes import FakeHost


@pytest.fixture
def tools(sessions: SessionFactory, vault: Vault) -> Tools:
    """What plans are made with, on a host that does nothing."""
    return Tools(sessions, vault, Profile(AppProfile(), min_free_bytes=0), lambda _: FakeHost())


def test_the_profile_says_whether_an_ended_term_blocks() -> None:
    def settings(**values: Any) -> Settings:
        return Settings(
            database_url="postgresql://x",
            redis_url="redis://x",
            secret_key=(new_key(),),
            allowed_origins=("*",),
            allowed_networks=("*",),
            **values,
        )

    assert settings().profile.block_expired
    assert not settings(block_expired=False).profile.block_expired


@pytest.mark.parametrize("block", [True, False])
async def test_an_ended_term_blocks_where_the_settings_say_so(
    sessions: SessionFactory, vault: Vault, tools: Tools, block: bool
) -> None:
    tools = replace(tools, profile=replace(tools.profile, block_expired=block))
    async with sessions.begin() as session:
        client = await make_client(session, vault, await make_server(session), expire_date=date(2020, 1, 1))
        work = Work(OperationKind.SET_EXPIRE_DATE, None, client.id, client.server_id)
        plan = await make_plan(session, work, tools)
    told = plan.playbook.steps[0]
    assert isinstance(told, Tell)
    assert told.facts == {"blocked": block}
    assert ("ensure_page" in map(name_of, plan.playbook.steps)) == block


@pytest.mark.parametrize("kept", [True, False])
async def test_a_new_administrator_needs_a_password_that_is_kept(
    sessions: SessionFactory, vault: Vault, tools: Tools, kept: bool
) -> None:
    """The letter that the cloud is ready may have left, and erased it, since the change was taken."""
    async with sessions.begin() as session:
        server = await make_server(session)
        client = await make_client(session, vault, server, activated_at=datetime.now(UTC), spare_port=29999)
        if not kept:
            client.owner_password = None
        params = {"changed": ["owner_login"]}
        work = Work(OperationKind.UPDATE_CLIENT, None, client.id, server.id, params)
        if kept:
            plan = await make_plan(session, work, tools)
            assert "set_owner_there" in map(name_of, plan.playbook.steps)
        else:
            with pytest.raises(ClientStateError, match="owner_password"):
                await make_plan(session, work, tools)
            work = replace(work, params={"changed": ["title"]})
            assert "set_owner_there" not in map(name_of, (await make_plan(session, work, tools)).playbook.steps)
