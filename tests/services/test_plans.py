"""What operations are going to do, by the rows and the settings as they are now."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest

from alfa_cloud.config import Settings
from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import ClientStateError
from alfa_cloud.playbooks.playbook import name_of
from alfa_cloud.playbooks.steps.facts import Tell
from alfa_cloud.playbooks.steps.prune import RemoveUnneededImages
from alfa_cloud.profile import Profile
from alfa_cloud.remote.docker import Image
from alfa_cloud.services import fleet_commands
from alfa_cloud.services.fleet_course import Limits
from alfa_cloud.services.operations import Caller
from alfa_cloud.services.plans.make import make_plan
from alfa_cloud.services.plans.plan import Tools, Work
from alfa_cloud.services.plans.preview import preview
from alfa_cloud.specs import AppProfile, OperationKind
from alfa_cloud.vault import Vault, new_key
from tests.factories import make_client, make_operation, make_server
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


async def test_a_prune_sees_what_was_accepted_after_it_began(
    sessions: SessionFactory, vault: Vault, tools: Tools
) -> None:
    async with sessions.begin() as session:
        server = await make_server(session)
        client = await make_client(session, vault, server)
        plan = await make_plan(session, Work(OperationKind.PRUNE_SERVER, None, None, server.id), tools)
    (step,) = plan.playbook.steps
    assert isinstance(step, RemoveUnneededImages)
    assert await step.needed() == {"alfa:1.0.0-master"}
    async with sessions.begin() as session:
        values = {"kind": OperationKind.SWITCH_CLIENT, "params": {"image_ref": "alfa:2.0.0-dev"}}
        await make_operation(session, client_id=client.id, server_id=server.id, **values)
    assert await step.needed() == {"alfa:1.0.0-master", "alfa:2.0.0-dev"}


async def test_the_plan_of_a_prune_names_the_images_that_would_go(
    sessions: SessionFactory, vault: Vault, tools: Tools
) -> None:
    made = [
        asdict(Image(f"{name}:{n}-dev", f"sha256:{n}", "", "dev", "", 1, f"2026-01-0{n}"))
        for name in ("alfa", "other")
        for n in range(1, 6)
    ]
    async with sessions.begin() as session:
        looked_at = datetime.now(UTC) - timedelta(seconds=90)
        full = await make_server(session, images=made, images_at=looked_at)
        unknown = await make_server(session)
        await make_client(session, vault, full, image_ref="alfa:1-dev", former_image_ref="alfa:2-dev")
        operation = await fleet_commands.prune(session, None, Caller(), limits=Limits())
        found = await preview(session, operation, tools)
    first, second = cast("list[dict[str, Any]]", found.extra["would_go"])
    assert (first["server"], first["images"]) == (full.name, ["alfa:3-dev"])
    assert 90 <= first["age_s"] < 120
    assert second == {"server": unknown.name, "server_id": str(unknown.id), "images": [], "age_s": None}
