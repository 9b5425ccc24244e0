"""Commands of one server, and what is found on it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncssh
import pytest
from sqlalchemy import delete

from alfa_cloud.models import Client, Operation, Server, ServerSample
from alfa_cloud.remote.keys import fingerprint, public_line
from alfa_cloud.sandbox.practice import PracticeServer
from tests.api.resources import Api, as_document
from tests.factories import make_client
from tests.system import free_port

pytest_plugins = ["tests.fixtures.api"]


def other_key() -> str:
    return public_line(asyncssh.generate_private_key("ssh-ed25519"))


@pytest.fixture
async def path(api: Api, server_id: int, calm_practice: PracticeServer) -> str:
    """The practice server's address, in good order."""
    async with api.sessions.begin() as session:
        row = await session.get_one(Server, server_id)
        row.host_key, row.host_key_changed, row.load, row.load_at = calm_practice.host_key, False, None, None
        await session.execute(delete(Operation))
    return f"/servers/{server_id}"


async def fresh_load(api: Api, path: str) -> Any:
    """The server's load of now; a slow machine may need another try."""
    for _ in range(20):
        load = (await api.get(path))["data"]["attributes"]["load"]
        if load is not None and not load["stale"]:
            break
    return load


async def change(api: Api, server_id: int, **values: Any) -> None:
    async with api.sessions.begin() as session:
        row = await session.get_one(Server, server_id)
        for name, value in values.items():
            setattr(row, name, value)


async def test_one_server_is_shown_with_its_load_of_now(api: Api, path: str) -> None:
    assert (await api.get("/servers"))["data"][0]["attributes"]["load"] is None
    load = await fresh_load(api, path)
    assert (load["stale"], load["age_s"] < 60) == (False, True)
    assert load["memory_used_bytes"] <= load["memory_total_bytes"]
    assert load["containers_running"] == 0
    listed = (await api.get("/servers"))["data"][0]["attributes"]["load"]
    assert (listed["stale"], listed["uptime_s"]) == (False, load["uptime_s"])


@pytest.mark.parametrize("fault", ["hang", "fail", "kill_connection"])
async def test_a_load_that_is_not_to_be_had_is_the_last_known(
    api: Api, path: str, practice: PracticeServer, fault: str
) -> None:
    first = await fresh_load(api, path)
    practice.fault("alfa-load", fault)
    began = time.monotonic()
    last = (await api.get(path))["data"]["attributes"]["load"]
    assert time.monotonic() - began < 4
    assert (last["stale"], last["at"], last["uptime_s"]) == (True, first["at"], first["uptime_s"])


async def test_the_list_says_which_loads_are_old(api: Api, path: str, server_id: int) -> None:
    await fresh_load(api, path)
    await change(api, server_id, load_at=datetime.now(UTC) - timedelta(minutes=10))
    load = (await api.get("/servers"))["data"][0]["attributes"]["load"]
    assert (load["stale"], 600 <= load["age_s"] < 660) == (True, True)


async def test_a_server_with_another_key_gets_no_command(
    api: Api, path: str, server_id: int, practice: PracticeServer
) -> None:
    await change(api, server_id, host_key=other_key())
    practice.forget_commands()
    for _ in range(2):
        found = (await api.get(path))["data"]["attributes"]
        assert (found["host_key_changed"], found["reachable"]) == (True, False)
    for method, command in (("GET", "check"), ("POST", "provision"), ("GET", "reboot_server")):
        assert await api.refused(method, f"{path}/{command}", 502) == [("host_key_changed", None)]
    assert practice.commands() == []


async def test_every_requirement_is_checked(api: Api, path: str, server_id: int, practice: PracticeServer) -> None:
    practice.fault("nginx -t", "fail", stderr="emerg")
    found = await api.get(f"{path}/check")
    rows = {row["id"]: row["attributes"] for row in found["data"]}
    assert {"sudo", "docker", "docker compose", "nginx", "postgresql", "free disk space", "clock"} <= set(rows)
    assert (rows["sudo"]["ok"], rows["sudo"]["found"], rows["sudo"]["mend"]) == (True, "root", "")
    assert (rows["nginx configuration"]["ok"], rows["nginx configuration"]["required"]) == (False, True)
    assert rows["nginx configuration"]["mend"].startswith("nginx -t")
    assert found["meta"]["ok"] is False
    kept = (await api.get(path))["data"]["attributes"]
    assert kept["requirements_ok"] is False
    assert {row["name"]: row["ok"] for row in kept["requirements"]} == {name: row["ok"] for name, row in rows.items()}
    thin = await api.get(f"{path}/check?fields[requirements]=ok")
    assert set(thin["data"][0]["attributes"]) == {"ok"}
    assert await api.refused("GET", "/servers/99/check", 404) == [("server_not_found", None)]
    await change(api, server_id, requirements_ok=True)


async def test_a_server_that_is_away_cannot_be_checked(
    api: Api, path: str, server_id: int, practice: PracticeServer
) -> None:
    await change(api, server_id, port=free_port())
    (error,) = (await api.ask("GET", f"{path}/check", 503)).json()["errors"]
    assert error["code"] == "server_unavailable"
    assert "At the last look it missed: " in error["detail"]
    await change(api, server_id, port=practice.port)


@pytest.mark.parametrize("form", ["flat", "document"])
async def test_a_changed_key_is_pinned_by_its_fingerprint(
    api: Api, path: str, server_id: int, practice: PracticeServer, form: str
) -> None:
    await change(api, server_id, host_key=other_key(), host_key_changed=True, port=practice.port)
    seen = fingerprint(practice.host_key)

    def sending(body: dict[str, Any]) -> dict[str, Any]:
        return {"json": body} if form == "flat" else as_document("commands", body)

    place = "" if form == "flat" else "/data"
    prefix = "" if form == "flat" else "/data/attributes"
    told = await api.ask("POST", f"{path}/host_key", 422, **sending({}))
    (error,) = told.json()["errors"]
    assert (error["code"], error["meta"]["shown"]) == ("fingerprint_required", seen)
    assert seen in error["detail"]
    assert error["source"]["pointer"].startswith(place)
    for wrong, field in (
        ({"fingerprint": fingerprint(other_key())}, "fingerprint"),
        ({"host_key": other_key()}, "host_key"),
        ({"fingerprint": seen, "host_key": other_key()}, "host_key"),
    ):
        refused = await api.ask("POST", f"{path}/host_key", 422, **sending(wrong))
        (error,) = refused.json()["errors"]
        assert (error["code"], error["source"]["pointer"]) == ("host_key_differs", f"{prefix}/{field}")
        assert error["meta"]["shown"] == seen
    assert (await api.get(path))["data"]["attributes"]["host_key_changed"] is True
    for body in ({"fingerprint": seen}, {"host_key": practice.host_key}):
        pinned = (await api.ask("POST", f"{path}/host_key", 200, **sending(body))).json()["data"]["attributes"]
        assert (pinned["host_key"], pinned["host_key_changed"], pinned["reachable"]) == (seen, False, True)
    assert (await fresh_load(api, path))["stale"] is False


async def test_what_is_no_key_is_not_compared(api: Api, path: str, practice: PracticeServer) -> None:
    practice.forget_commands()
    for body, code in (
        ({"fingerprint": "MD5:aa:bb"}, "invalid_value"),
        ({"fingerprint": "SHA256:short"}, "invalid_value"),
        ({"host_key": "no key"}, "invalid_host_key"),
        ({"key": "x"}, "unknown_field"),
    ):
        assert [found for found, _ in await api.refused("POST", f"{path}/host_key", 422, json=body)] == [code]
    assert await api.refused("POST", "/servers/99/host_key", 404, json={}) == [("server_not_found", None)]
    assert practice.commands() == []


async def test_a_key_that_cannot_be_seen(api: Api, path: str, server_id: int, practice: PracticeServer) -> None:
    await change(api, server_id, port=free_port())
    body = {"fingerprint": fingerprint(practice.host_key)}
    assert await api.refused("POST", f"{path}/host_key", 503, json=body) == [("server_unavailable", None)]
    await change(api, server_id, port=practice.port)


@pytest.mark.parametrize("command", ["provision", "reboot_server"])
async def test_a_command_of_a_server_becomes_one_operation(api: Api, path: str, server_id: int, command: str) -> None:
    methods = ("POST",) if command == "provision" else ("GET", "POST")
    made = [(await api.ask(method, f"{path}/{command}", 202)).json() for method in (*methods, "POST")]
    assert len({one["data"]["id"] for one in made}) == 1
    attributes = made[0]["data"]["attributes"]
    assert attributes["kind"] == {"provision": "provision_server", "reboot_server": "reboot_server"}[command]
    assert made[0]["data"]["relationships"]["server"]["data"]["id"] == str(server_id)
    async with api.sessions() as session:
        assert (await session.get_one(Operation, made[0]["data"]["id"])).exclusive
    assert await api.refused("POST", f"/servers/99/{command}", 404) == [("server_not_found", None)]


async def test_a_reboot_s_plan_names_what_is_waited_for(api: Api, path: str, server_id: int) -> None:
    async with api.sessions.begin() as session:
        server = await session.get_one(Server, server_id)
        rows = [await make_client(session, api.vault, server, available=one) for one in (True, False, True)]
    plan = (await api.ask("GET", f"{path}/reboot_server?dry_run=true", 200)).json()["data"]["attributes"]
    assert plan["steps"] == ["Reboot", "Docker answers", "Clients answer: 2"]
    plan = (await api.ask("POST", f"{path}/provision?dry_run=true", 200)).json()["data"]["attributes"]
    assert plan["steps"][:4] == ["Check the login", "Home of the login", plan["steps"][2], "Packages"]
    assert (await api.get("/operations?filter[state]=queued"))["data"] == []
    async with api.sessions.begin() as session:
        for row in rows:
            await session.delete(await session.get_one(Client, row.id))


async def test_samples_are_listed_for_plots(api: Api, path: str, server_id: int) -> None:
    load = await fresh_load(api, path)
    values = {name: value for name, value in load.items() if name not in ("at", "age_s", "stale")}
    now = datetime.now(UTC)
    async with api.sessions.begin() as session:
        for hours in (0, 1, 30):
            session.add(ServerSample(server_id=server_id, at=now - timedelta(hours=hours, minutes=1), values=values))
    found = await api.get(f"{path}/metrics")
    assert found["meta"] == {"step_s": 60, "last_hours": 24}
    assert [row["attributes"]["uptime_s"] for row in found["data"]] == [values["uptime_s"]] * 2
    assert len((await api.get(f"{path}/metrics?last_hours=336&fields[samples]=at,load_1m"))["data"]) == 3
    for wrong in ("0", "337", "x"):
        refused = await api.refused("GET", f"{path}/metrics?last_hours={wrong}", 400)
        assert [place for _, place in refused] == ["last_hours"]
    assert await api.refused("GET", "/servers/99/metrics", 404) == [("server_not_found", None)]


async def test_images_have_one_tag(api: Api) -> None:
    described = api.app.openapi()["paths"]["/servers/{server_id}/images"]["get"]
    assert described["tags"] == ["images"]
