"""Clients: created after checks, changed, listed, deleted; their creation's log as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update

from alfa_cloud.models import Client, Operation, OperationLine, Server
from alfa_cloud.services.client_specs import client_secrets
from alfa_cloud.services.clients import SORTS
from alfa_cloud.services.outcomes import Ended, apply
from alfa_cloud.specs import ClientStatus, OperationState
from tests.api.resources import Api, as_document, operation_of
from tests.factories import make_client, make_server

pytest_plugins = ["tests.fixtures.api"]

PASSWORD = "correct-horse-battery"
ATTRIBUTES = {
    "name", "title", "email", "locale", "domain", "url", "owner_login", "image", "version", "migration_pending",
    "status", "available", "available_at", "available_reason", "dns_ok", "maintenance", "blocked", "demo",
    "turbostart", "tutorial", "expire_date", "users_count", "users_counted_at", "max_resources", "last_backup_at",
    "last_proven_at", "actions", "created_at", "updated_at",
}  # fmt: skip


@pytest.fixture(autouse=True)
async def no_clients(api: Api) -> AsyncIterator[None]:
    """Each test begins without clients."""
    yield
    async with api.sessions.begin() as session:
        await session.execute(delete(Client))


@pytest.fixture
def new(server_id: int) -> dict[str, Any]:
    """A good body."""
    return {"name": "hematology", "email": "lab@example.org", "server_id": server_id}


async def count(api: Api, model: Any) -> int:
    async with api.sessions() as session:
        return await session.scalar(select(func.count()).select_from(model)) or 0


async def change(api: Api, client_id: str, **values: Any) -> None:
    async with api.sessions.begin() as session:
        await session.execute(update(Client).where(Client.id == int(client_id)).values(**values))


async def end(api: Api, operation_id: str, state: OperationState, *texts: str) -> None:
    """An operation ends, as a worker would end it, after lines of its log."""
    async with api.sessions.begin() as session:
        row = await session.get_one(Operation, operation_id)
        first = row.last_seq + 1
        session.add_all(
            OperationLine(operation_id=row.id, seq=seq, stream="stdout", text=text)
            for seq, text in enumerate(texts, first)
        )
        row.last_seq += len(texts)
        row.state, row.finished_at = state, datetime.now(UTC)
        await apply(session, Ended.of(row, state))


# Creating


@pytest.mark.parametrize("form", ["flat", "document"])
async def test_a_client_has_its_id_at_once(api: Api, new: dict[str, Any], form: str) -> None:
    body = {**new, "owner_password": PASSWORD}
    options = {"json": body} if form == "flat" else as_document("clients", body)
    answer = await api.ask("POST", "/clients/", 201, **options)
    data = answer.json()["data"]
    attributes = data["attributes"]
    assert answer.headers["location"] == data["links"]["self"] == f"/clients/{data['id']}"
    assert set(attributes) == ATTRIBUTES
    assert (attributes["domain"], attributes["owner_login"]) == ("hematology.practice.test", "lab@example.org")
    assert attributes["url"].startswith("http://hematology.practice.test:")
    assert (attributes["image"], attributes["version"], attributes["locale"]) == ("1.0.0-master", "", "ru")
    assert (attributes["status"], attributes["available"], attributes["expire_date"]) == ("creating", False, None)
    assert attributes["actions"]["update"] == {"allowed": True, "reason": None}
    assert attributes["actions"]["retry"]["allowed"] is False
    assert data["relationships"]["server"]["data"] == {"type": "servers", "id": str(new["server_id"])}
    operation = (await api.get(f"/operations/{operation_of(answer.json())}"))["data"]
    assert (operation["attributes"]["kind"], operation["attributes"]["state"]) == ("create_client", "queued")
    assert operation["relationships"]["client"]["data"] == {"type": "clients", "id": data["id"]}
    shown = await api.get(f"/clients/{data['id']}?include=server,operation")
    assert {(one["type"], one["id"]) for one in shown["included"]} == {
        ("servers", str(new["server_id"])),
        ("operations", operation["id"]),
    }
    log = await api.ask("GET", f"/clients/{data['id']}/create_log", 200)
    assert log.json()["data"]["attributes"]["completed"] is None
    assert all(PASSWORD not in text for text in (answer.text, str(operation), str(shown), log.text))
    async with api.sessions() as session:
        assert PASSWORD not in str((await session.get_one(Operation, operation["id"])).params)


@pytest.mark.parametrize(
    ("wish", "shown", "reference"),
    [
        (None, "1.0.0-master", "alfa:1.0.0-master"),
        ("1.1.0-dev", "1.1.0-dev", "alfa:1.1.0-dev"),
        ("alfa:1.1.0-dev", "alfa:1.1.0-dev", "alfa:1.1.0-dev"),
        ("dev", "dev", "alfa:1.1.0-dev"),
        ("master", "master", "alfa:1.0.0-master"),
    ],
)
async def test_an_image_is_a_tag_or_a_reference_or_a_channel(
    api: Api, new: dict[str, Any], wish: str | None, shown: str, reference: str
) -> None:
    made = await api.post("/clients/", {**new, "image": wish})
    assert made["data"]["attributes"]["image"] == shown
    async with api.sessions() as session:
        assert (await session.get_one(Client, int(made["data"]["id"]))).image_ref == reference


async def test_a_stage_server_gives_the_newest_dev(api: Api, new: dict[str, Any]) -> None:
    for role, image in (("stage", "1.1.0-dev"), ("production", "1.0.0-master")):
        await api.ask("PATCH", f"/servers/{new['server_id']}", 200, json={"role": role})
        made = await api.post("/clients/", {**new, "name": f"at-{role}"})
        assert made["data"]["attributes"]["image"] == image


@pytest.mark.parametrize("image", ["0.0.1-master", "alfa:0.0.1-master", "beta:1.0.0-master"])
async def test_an_image_that_is_not_there_is_refused_with_those_that_are(
    api: Api, new: dict[str, Any], image: str
) -> None:
    answer = await api.ask("POST", "/clients/", 422, json={**new, "image": image})
    (error,) = answer.json()["errors"]
    assert (error["code"], error["source"]["pointer"]) == ("image_not_on_server", "/image")
    assert "1.0.0-master" in error["detail"]
    assert "1.1.0-dev" in error["detail"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    *(({"name": name}, "name", "invalid_value") for name in ("", "A", "a_b", "-a", "a-", "a" * 41, "a\n", "имя", None)),
    *(({"name": name}, "name", "invalid") for name in ("admin", "www", "mol", "ab--cd", "xn--a")),
    *(
        ({"email": email}, "email", "invalid_email")
        for email in ("", "x", "a@b", "-a@example.org", "A <a@example.org>")
    ),
    ({"email": "a@example.org, b@example.org"}, "email", "invalid_email"),
    ({"email": "a@example.org\nBcc: b@example.org"}, "email", "invalid_email"),
    ({"email": "a" * 250 + "@example.org"}, "email", "invalid_email"),
    ({"email": None}, "email", "invalid_value"),
    ({"owner_login": "root"}, "owner_login", "invalid_email"),
    *(({"title": title}, "title", "invalid_title") for title in ("a\tb", "a\nb", "a\u2028b", "a\u202eb", "a\u2066b")),
    ({"title": "a\u061cb"}, "title", "invalid_title"),
    ({"title": "x" * 201}, "title", "invalid_value"),
    ({"title": 7}, "title", "invalid_value"),
    *(({"domain": domain}, "domain", "invalid") for domain in ("localhost", "a b.org", "*.example.org", "1.2.3.4")),
    *(({"domain": domain}, "domain", "invalid") for domain in ("a..b.org", "-a.example.org", "xn--a.example.org")),
    *(
        ({"domain": domain}, "domain", "invalid")
        for domain in ("a_b.example.org", "https://a.org/", ".".join("a" * 140))
    ),
    ({"domain": "a." * 200}, "domain", "invalid_value"),
    ({"owner_password": "short"}, "owner_password", "invalid_value"),
    ({"owner_password": "long enough\r"}, "owner_password", "control_characters"),
    ({"owner_password": "long\nenough"}, "owner_password", "control_characters"),
    ({"owner_password": "x" * 1025}, "owner_password", "invalid_value"),
    ({"owner_password": 12345678}, "owner_password", "invalid_value"),
    *(({"expire_date": day}, "expire_date", "invalid_value") for day in ("2026-02-30", "soon", "", 20260101)),
    *(({"expire_date": day}, "expire_date", "invalid_value") for day in ("01.02.2026", "2026-02-01T10:00:00", True)),
    *(({"expire_date": day}, "expire_date", "invalid_value") for day in ("0", "1e9", "1798675200", 0, " 2026-02-01")),
    *(({"image": image}, "image", "invalid_value") for image in ("", "-x", "a b", "$(id)", "a:b:c", "x" * 400)),
    ({"locale": "de"}, "locale", "invalid_value"),
    ({"turbostart": 1}, "turbostart", "invalid_value"),
    ({"max_resources": {"memory_bytes": 1}}, "max_resources/memory_bytes", "invalid_value"),
    ({"max_resources": {"cpus": 1, "memory_bytes": 10**9}}, "max_resources/cpus", "unknown_field"),
    ({"status": "active"}, "status", "unknown_field"),
    ({"port": 1}, "port", "unknown_field"),
]


@pytest.mark.parametrize("form", ["flat", "document"])
@pytest.mark.parametrize(("wrong", "field", "code"), WRONG)
async def test_a_wrong_field_is_named_and_nothing_is_made(
    api: Api, new: dict[str, Any], wrong: dict[str, Any], field: str, code: str, form: str
) -> None:
    before = await count(api, Operation)
    options = {"json": {**new, **wrong}} if form == "flat" else as_document("clients", {**new, **wrong})
    pointer = f"/{field}" if form == "flat" else f"/data/attributes/{field}"
    assert await api.refused("POST", "/clients/", 422, **options) == [(code, pointer)]
    assert (await count(api, Client), await count(api, Operation)) == (0, before)


async def test_a_server_that_is_not_there_is_named(api: Api, new: dict[str, Any]) -> None:
    for wrong, code in ((99, "invalid"), ("99", "invalid"), (2**31, "invalid_value"), (None, "invalid_value")):
        refused = await api.refused("POST", "/clients/", 422, json={**new, "server_id": wrong})
        assert refused == [(code, "/server_id")]
    document = as_document("clients", {**new, "server_id": 99})
    refused = await api.refused("POST", "/clients/", 422, **document)
    assert refused == [("invalid", "/data/relationships/server")]
    del document["json"]["data"]["relationships"]
    assert await api.refused("POST", "/clients/", 422, **document) == [("required", "/data")]
    document["json"]["data"]["attributes"]["server_id"] = new["server_id"]
    refused = await api.refused("POST", "/clients/", 422, **document)
    assert ("unknown_field", "/data/attributes/server_id") in refused
    document = as_document("servers", new)
    assert await api.refused("POST", "/clients/", 409, **document) == [("type_conflict", "/data/type")]


async def test_a_password_may_have_any_character_but_line_ends_and_nul(api: Api, new: dict[str, Any]) -> None:
    password = "tab\tdel\x7fnel\x85vt\x0bend"
    made = await api.post("/clients/", {**new, "owner_password": password})
    async with api.sessions() as session:
        client = await session.get_one(Client, int(made["data"]["id"]))
    found = client_secrets(client, api.vault).owner_password
    assert found is not None
    assert found.reveal() == password


async def test_an_empty_password_is_none_and_nul_is_refused(api: Api, new: dict[str, Any]) -> None:
    for number, password in enumerate(("", None)):
        await api.post("/clients/", {**new, "name": f"lab-{number}", "owner_password": password})
    nul = {"content": b'{"owner_password":"long\\u0000enough"}', "headers": {"Content-Type": "application/json"}}
    answer = await api.http.post("/clients/", **nul)  # type: ignore[arg-type]  # the options of a request
    assert answer.status_code in (400, 422)
    assert await count(api, Client) == 2


async def test_a_server_that_is_off_or_full_or_unready_takes_no_client(api: Api, new: dict[str, Any]) -> None:
    path = f"/servers/{new['server_id']}"
    await api.ask("PATCH", path, 200, json={"active": False})
    assert await api.refused("POST", "/clients/", 409, json=new) == [("server_not_ready", None)]
    await api.ask("PATCH", path, 200, json={"active": True, "max_clients": 1})
    await api.post("/clients/", new)
    other = {**new, "name": "second"}
    assert await api.refused("POST", "/clients/", 409, json=other) == [("server_full", None)]
    await api.ask("PATCH", path, 200, json={"max_clients": 100})
    missing = [{"name": "nginx", "ok": False, "found": "", "needed": "1.18", "mend": "apt-get install nginx"}]
    async with api.sessions.begin() as session:
        row = await session.get_one(Server, new["server_id"])
        kept = row.requirements
        row.requirements, row.requirements_ok = missing, False
    answer = await api.ask("POST", "/clients/", 409, json=other)
    assert "nginx" in answer.json()["errors"][0]["detail"]
    async with api.sessions.begin() as session:
        row = await session.get_one(Server, new["server_id"])
        row.requirements, row.requirements_ok = kept, True
    assert await count(api, Client) == 1


async def test_a_name_and_a_domain_are_taken_once(api: Api, new: dict[str, Any]) -> None:
    made = await asyncio.gather(*(api.http.post("/clients/", json=new) for _ in range(8)))
    assert sorted(answer.status_code for answer in made) == [201] + [409] * 7
    assert await api.refused("POST", "/clients/", 409, json=new) == [("client_name_taken", None)]
    same = {**new, "name": "another", "domain": "HEMATOLOGY.practice.TEST."}
    assert await api.refused("POST", "/clients/", 409, json=same) == [("client_domain_taken", None)]
    async with api.sessions() as session:
        client_id = str(await session.scalar(select(Client.id)))
    await change(api, client_id, status=ClientStatus.ARCHIVED, port=None)
    await api.post("/clients/", new)


async def test_domains_are_kept_as_the_web_knows_them(api: Api, new: dict[str, Any]) -> None:
    made = await api.post("/clients/", {**new, "domain": "Лаборатория.Пример.РФ"})
    assert made["data"]["attributes"]["domain"] == "xn--80aac3alubocs0m.xn--e1afmkfd.xn--p1ai"
    assert await api.refused(
        "POST", "/clients/", 409, json={**new, "name": "b", "domain": "лаборатория.пример.рф"}
    ) == [("client_domain_taken", None)]


async def test_ports_are_given_once(api: Api, new: dict[str, Any]) -> None:
    made = await asyncio.gather(*(api.post("/clients/", {**new, "name": f"lab-{n}"}) for n in range(12)))
    assert len(made) == 12
    async with api.sessions() as session:
        assert len(set(await session.scalars(select(Client.port)))) == 12


async def test_a_repeat_with_a_key_makes_one_client(api: Api, new: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "one-client"}
    made = await asyncio.gather(*(api.post("/clients/", new, headers=headers) for _ in range(5)))
    assert all(each == made[0] for each in made)
    assert await count(api, Client) == 1
    other = {**new, "name": "other"}
    assert await api.refused("POST", "/clients/", 422, json=other, headers=headers) == [
        ("idempotency_key_reused", "Idempotency-Key")
    ]


# Changing


async def test_an_update_makes_an_operation_only_for_a_change(api: Api, new: dict[str, Any]) -> None:
    made = await api.post("/clients/", new)
    path, id_ = f"/clients/{made['data']['id']}", made["data"]["id"]
    same = {"title": "", "email": new["email"], "owner_password": "", "domain": "Hematology.practice.test"}
    assert operation_of((await api.ask("PATCH", path, 200, json=same)).json()) == operation_of(made)
    assert operation_of((await api.ask("PATCH", path, 200, json={"owner_password": None})).json()) == operation_of(made)
    first = (await api.ask("PATCH", path, 200, json={"title": "Первая"})).json()
    again = (await api.ask("PATCH", path, 200, json={"title": "Первая"})).json()
    document = as_document("clients", {"id": id_, "title": "Вторая", "turbostart": True})
    second = (await api.ask("PATCH", path, 200, **document)).json()
    assert len({operation_of(made), operation_of(first), operation_of(second)}) == 3
    assert operation_of(again) == operation_of(first)
    assert (second["data"]["attributes"]["title"], second["data"]["attributes"]["turbostart"]) == ("Вторая", True)
    third = (await api.ask("POST", "/clients/", 200, json={"id": id_, "max_resources": {"memory_bytes": 2**30}})).json()
    assert third["data"]["attributes"]["max_resources"] == {"memory_bytes": 2**30}
    back = (await api.ask("PATCH", path, 200, json={"max_resources": None, "title": "Первая"})).json()
    assert back["data"]["attributes"]["max_resources"] == {}
    listed = await api.get(f"/operations?filter[client]={id_}&filter[kind]=update_client")
    assert listed["meta"]["page"]["total"] == 4


async def test_what_has_its_own_command_is_refused_by_its_name(api: Api, new: dict[str, Any]) -> None:
    made = await api.post("/clients/", new)
    path = f"/clients/{made['data']['id']}"
    for name, value, command in (
        ("name", "other", "for ever"),
        ("server_id", 2, "move_to"),
        ("image", "dev", "switch"),
        ("status", "active", "commands"),
        ("expire_date", None, "expire_date"),
        ("owner_password", PASSWORD, "owner_password"),
    ):
        (error,) = (await api.ask("PATCH", path, 422, json={name: value})).json()["errors"]
        assert (error["code"], error["source"]["pointer"]) == ("use_command", f"/{name}")
        assert command in error["detail"]
        assert PASSWORD not in error["detail"]
    document = as_document("clients", {"id": made["data"]["id"], "server_id": 2})
    assert await api.refused("PATCH", path, 422, **document) == [("use_command", "/data/relationships/server")]
    for name in ("title", "email", "locale", "domain", "owner_login", "turbostart", "tutorial"):
        assert await api.refused("PATCH", path, 422, json={name: None}) == [("invalid_value", f"/{name}")]
    assert await api.refused("PATCH", path, 422, json={"domain": ""}) == [("invalid", "/domain")]
    assert await api.refused("PATCH", path, 422, json={"port": 1}) == [("unknown_field", "/port")]


async def test_an_update_of_what_is_not_there_or_not_changeable(api: Api, new: dict[str, Any]) -> None:
    made, other = await api.post("/clients/", new), await api.post("/clients/", {**new, "name": "other"})
    path = f"/clients/{made['data']['id']}"
    taken = {"domain": "other.practice.test"}
    assert await api.refused("PATCH", path, 409, json=taken) == [("client_domain_taken", None)]
    assert await api.refused("PATCH", path, 409, json={"id": other["data"]["id"]}) == [("id_conflict", "/id")]
    for id_ in (0, "0", 999999, 2**31, 2**50, "x", "-1"):
        assert await api.refused("POST", "/clients/", 404, json={"id": id_, "title": "x"}) == [
            ("client_not_found", None)
        ]
    for status in ("moving", "deleting", "archived", "restoring"):
        await change(api, made["data"]["id"], status=status)
        assert await api.refused("PATCH", path, 409, json={"title": status}) == [("client_state", None)]
        assert (await api.get(path))["data"]["attributes"]["actions"]["update"]["allowed"] is False
    await change(api, made["data"]["id"], status="failed")
    changed = (await api.ask("PATCH", path, 200, json={"title": "x"})).json()
    assert operation_of(changed) == operation_of(made)
    await change(api, made["data"]["id"], owner_password=None)
    login = {"owner_login": "next@example.org"}
    assert await api.refused("PATCH", path, 422, json=login) == [("invalid", "/owner_login")]


# Deleting


async def test_equal_deletions_are_one_operation(api: Api, new: dict[str, Any]) -> None:
    made = await api.post("/clients/", new)
    await end(api, operation_of(made), OperationState.ERROR)
    path = f"/clients/{made['data']['id']}"
    assert (await api.get(path))["data"]["attributes"]["status"] == "failed"
    answers = await asyncio.gather(*(api.ask("DELETE", path, 202) for _ in range(30)))
    ids = {answer.json()["data"]["id"] for answer in answers}
    assert len(ids) == 1
    assert {answer.headers["location"] for answer in answers} == {f"/operations/{ids.pop()}"}
    assert (await api.get(path))["data"]["attributes"]["status"] == "deleting"


async def test_a_client_that_lives_is_deleted_and_without_an_archive_only_by_its_name(
    api: Api, new: dict[str, Any]
) -> None:
    made = await api.post("/clients/", new)
    await end(api, operation_of(made), OperationState.OK)
    path = f"/clients/{made['data']['id']}"
    alive = (await api.get(path))["data"]["attributes"]
    assert (alive["status"], alive["available"], alive["version"]) == ("active", True, "1.0.0-master")
    assert alive["actions"]["delete"] == {"allowed": True, "reason": None}
    for query in ("keep_archive=false", "keep_archive=false&confirm_name=Hematology"):
        refused = await api.refused("DELETE", f"{path}?{query}", 422)
        assert refused == [("confirm_name_needed", "confirm_name")], query
    assert (await api.get(path))["data"]["attributes"]["status"] == "active"
    kept = (await api.ask("DELETE", path, 202)).json()["data"]["id"]
    assert (await api.get(path))["data"]["attributes"]["status"] == "deleting"
    assert (await api.ask("DELETE", f"{path}?confirm_name=hematology", 202)).json()["data"]["id"] == kept
    gone = await api.ask("DELETE", f"{path}?keep_archive=false&confirm_name=hematology", 202)
    assert gone.json()["data"]["id"] != kept
    async with api.sessions() as session:
        assert (await session.get_one(Operation, UUID(kept))).params == {}
        assert (await session.get_one(Operation, UUID(gone.json()["data"]["id"]))).params == {"keep_archive": False}


async def test_what_is_not_there_is_not_deleted(api: Api) -> None:
    for wrong in ("999999", "0", "x", "2147483648"):
        for method in ("GET", "DELETE"):
            await api.refused(method, f"/clients/{wrong}", 404)
        await api.refused("GET", f"/clients/{wrong}/create_log", 404)


# Listing


@pytest.fixture
async def three(api: Api) -> list[str]:
    """Names of clients that differ in everything, on a server of their own, and an archived one."""
    async with api.sessions.begin() as session:
        server = await make_server(session)
        rows: list[dict[str, Any]] = [
            {"name": "a-lab", "title": "100% кровь", "available": True, "expire_date": date(2026, 1, 1)},
            {"name": "b-lab", "title": "under_score", "maintenance": True, "expire_date": date(2026, 6, 1)},
            {"name": "c-lab", "title": "Plain", "demo": True, "blocked": True, "migration_pending": True},
            {"name": "d-lab", "title": "Gone", "status": "archived", "port": None},
        ]
        for number, row in enumerate(rows):
            extra = {"image": f"{number}.0", "version": f"v{number}", "email": f"{row['name']}@example.org"}
            await make_client(session, api.vault, server, **{**extra, **row})
        return ["a-lab", "b-lab", "c-lab", str(server.id)]


async def names(api: Api, query: str) -> str:
    found = await api.get(f"/clients?{query}")
    assert found["meta"]["page"]["total"] == len(found["data"])
    return "".join(row["attributes"]["name"][0] for row in found["data"])


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "abc"),
        ("filter[q]=LAB", "abc"),
        ("filter[q]=КРОВЬ", "a"),
        ("filter[q]=100%25", "a"),
        ("filter[q]=%25", "a"),
        ("filter[q]=_", "b"),
        ("filter[q]=%5C", ""),
        ("filter[q]=", "abc"),
        ("filter[q]=b-lab@example", "b"),
        ("filter[q]=c-lab.cloud", "c"),
        ("filter[status]=archived", "d"),
        ("filter[status]=active,archived", "abcd"),
        ("filter[image]=0.0,2.0", "ac"),
        ("filter[version]=v1", "b"),
        ("filter[available]=true", "a"),
        ("filter[available]=false", "bc"),
        ("filter[maintenance]=true", "b"),
        ("filter[demo]=true", "c"),
        ("filter[blocked]=true", "c"),
        ("filter[migration_pending]=true", "c"),
        ("filter[expires_before]=2026-06-01", "a"),
        ("filter[expires_after]=2026-01-01", "b"),
        ("filter[expires_after]=2025-12-31&filter[expires_before]=2026-06-02&filter[maintenance]=false", "a"),
        ("sort=-name", "cba"),
        ("sort=expire_date", "abc"),
        ("sort=-expire_date", "bac"),
        ("sort=available,-name", "cba"),
    ],
)
async def test_every_filter_and_order(api: Api, three: list[str], query: str, found: str) -> None:
    del three
    assert await names(api, query) == found


async def test_a_list_of_one_server(api: Api, three: list[str]) -> None:
    assert await names(api, f"filter[server]={three[3]},7777") == "abc"
    assert await names(api, "filter[server]=7777") == ""


@pytest.mark.parametrize("sort", sorted(SORTS))
async def test_every_order_goes_both_ways(api: Api, three: list[str], sort: str) -> None:
    up, down = await names(api, f"sort={sort}"), await names(api, f"sort=-{sort}")
    assert sorted(up) == sorted(down) == ["a", "b", "c"]
    if sort in ("id", "name", "title", "email", "domain", "image", "version", "created_at"):
        assert up == down[::-1]


async def test_pages_are_linked_and_total(api: Api, three: list[str]) -> None:
    seen, link = [], "/clients?page[size]=1&sort=locale"
    for _ in range(3):
        page = await api.get(link)
        seen += [row["attributes"]["name"] for row in page["data"]]
        link = page["links"].get("next", "")
    assert sorted(seen) == three[:3]
    assert link == ""
    assert set(page["links"]) == {"self", "first", "last", "prev"}
    assert page["meta"]["page"] == {"number": 3, "size": 1, "total": 3}
    beyond = await api.get("/clients?page[number]=1000000000&page[size]=200")
    assert beyond["data"] == []
    assert beyond["links"]["prev"] == beyond["links"]["last"]


async def test_fields_and_includes(api: Api, three: list[str]) -> None:
    found = await api.get("/clients?include=server,operation&fields[clients]=name,server&fields[servers]=name")
    assert [set(row["attributes"]) for row in found["data"]] == [{"name"}] * 3
    assert [set(row["relationships"]) for row in found["data"]] == [{"server"}] * 3
    (server,) = found["included"]
    assert (server["id"], set(server["attributes"])) == (three[3], {"name"})
    assert "included" not in await api.get("/clients")
    empty = await api.get("/clients?fields[clients]=&include=")
    assert all("attributes" not in row for row in empty["data"])


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("x=1", "unknown_parameter", "x"),
        ("filter[nope]=1", "unknown_parameter", "filter[nope]"),
        ("filter[status]=nope", "invalid_filter", "filter[status]"),
        ("filter[status]=", "invalid_filter", "filter[status]"),
        ("filter[server]=x", "invalid_filter", "filter[server]"),
        ("filter[server]=", "invalid_filter", "filter[server]"),
        ("filter[server]=9999999999", "invalid_filter", "filter[server]"),
        ("filter[demo]=yes", "invalid_filter", "filter[demo]"),
        ("filter[expires_before]=soon", "invalid_filter", "filter[expires_before]"),
        ("filter[expires_before]=20260101", "invalid_filter", "filter[expires_before]"),
        ("filter[expires_after]=2026-W01-1", "invalid_filter", "filter[expires_after]"),
        ("filter[q]=%00", "invalid_parameter", "filter[q]"),
        ("sort=nope", "invalid_parameter", "sort"),
        ("sort=name,-name", "invalid_parameter", "sort"),
        ("sort=app_key", "invalid_parameter", "sort"),
        ("page[size]=0", "invalid_parameter", "page[size]"),
        ("page[size]=201", "invalid_parameter", "page[size]"),
        ("page[number]=x", "invalid_parameter", "page[number]"),
        ("include=secrets", "invalid_parameter", "include"),
        ("fields[clients]=app_key", "invalid_parameter", "fields[clients]"),
        ("fields[nope]=x", "unknown_parameter", "fields[nope]"),
        ("sort=name&sort=id", "invalid_parameter", "sort"),
    ],
)
async def test_a_wrong_question_is_400(api: Api, query: str, code: str, parameter: str) -> None:
    assert await api.refused("GET", f"/clients?{query}", 400) == [(code, parameter)]


# The creation's log


async def test_the_creations_log_goes_on_over_a_retry(api: Api, new: dict[str, Any]) -> None:
    made = await api.post("/clients/", new)
    path = f"/clients/{made['data']['id']}/create_log"
    await end(api, operation_of(made), OperationState.ERROR, "one", "two")
    first = await api.get(path)
    assert (first["data"]["attributes"]["completed"], first["data"]["attributes"]["last_seq"]) == ("error", 2)
    assert "next" not in first["links"]
    retried = (await api.ask("POST", f"/operations/{operation_of(made)}/retry", 202)).json()["data"]["id"]
    second = await api.get(path)
    assert (second["data"]["id"], second["data"]["attributes"]["completed"]) == (retried, None)
    assert second["links"]["next"] == f"{path}?after_seq=2"
    assert (await api.get(second["links"]["next"]))["data"]["attributes"]["lines"] == []
    await end(api, retried, OperationState.OK, "three", "four")
    rest = await api.get(f"{path}?after_seq=2")
    assert [(line["seq"], line["text"]) for line in rest["data"]["attributes"]["lines"]] == [(3, "three"), (4, "four")]
    assert (rest["data"]["attributes"]["completed"], rest["data"]["attributes"]["state"]) == ("ok", "ok")
    assert "next" not in rest["links"]
    whole = (await api.ask("GET", path, 200, headers={"Accept": "text/plain"})).text
    assert whole == "one\ntwo\nthree\nfour\ncompleted: ok\n"
    beyond = (await api.get(f"{path}?after_seq=99"))["data"]["attributes"]
    assert (beyond["lines"], beyond["completed"]) == ([], "ok")


async def test_a_long_log_is_read_by_its_links(api: Api, new: dict[str, Any]) -> None:
    made = await api.post("/clients/", new)
    await end(api, operation_of(made), OperationState.ERROR, *(f"line {n}" for n in range(1500)))
    retried = await api.ask("POST", f"/operations/{operation_of(made)}/retry", 202)
    await end(api, retried.json()["data"]["id"], OperationState.OK, *(f"more {n}" for n in range(1200)))
    seqs, link = [], f"/clients/{made['data']['id']}/create_log?wait_s=1"
    while link:
        page = await api.get(link)
        seqs += [line["seq"] for line in page["data"]["attributes"]["lines"]]
        link = page["links"].get("next", "")
    assert seqs == list(range(1, 2701))


async def test_a_client_without_a_kept_creation_has_no_log(api: Api, three: list[str]) -> None:
    del three
    client_id = (await api.get("/clients?filter[q]=a-lab"))["data"][0]["id"]
    assert await api.refused("GET", f"/clients/{client_id}/create_log", 404) == [("operation_not_found", None)]


@pytest.mark.parametrize("query", ["after_seq=-1", "after_seq=x", "after_seq=2147483648", "wait_s=61", "follow_log=2"])
async def test_a_wrong_question_of_a_log_is_400(api: Api, new: dict[str, Any], query: str) -> None:
    made = await api.post("/clients/", new)
    path = f"/clients/{made['data']['id']}/create_log?{query}"
    assert await api.refused("GET", path, 400) == [("invalid_parameter", query.partition("=")[0])]
