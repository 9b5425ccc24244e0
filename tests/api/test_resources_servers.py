"""Servers and their images: registered after a look, changed, listed, forgotten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import pytest
from sqlalchemy import delete, func, select

from alfa_cloud.models import Client, Operation, Server
from alfa_cloud.remote.keys import fingerprint, public_line
from alfa_cloud.sandbox.practice import PracticeServer
from tests.api.resources import JSONAPI, Api, as_document, operation_of
from tests.factories import make_client, make_server
from tests.system import free_port

pytest_plugins = ["tests.fixtures.api"]


def other_key() -> str:
    return public_line(asyncssh.generate_private_key("ssh-ed25519"))


async def count(api: Api, model: Any) -> int:
    async with api.sessions() as session:
        return await session.scalar(select(func.count()).select_from(model)) or 0


@pytest.fixture
async def unregistered(api: Api, door: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The practice server, and no row of it before and after."""
    yield door
    async with api.sessions.begin() as session:
        await session.execute(delete(Client))
        await session.execute(delete(Server).where(Server.port == door["port"]))


@pytest.fixture
async def web_port() -> AsyncIterator[int]:
    """A port at which something answers that is no SSH server."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.readline()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that takes connections and says nothing."""

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("form", ["flat", "document"])
async def test_a_server_is_registered_after_a_look(
    api: Api, unregistered: dict[str, Any], practice: PracticeServer, form: str
) -> None:
    options = {"json": unregistered} if form == "flat" else as_document("servers", unregistered)
    answer = await api.ask("POST", "/servers/", 201, **options)
    made = answer.json()
    attributes = made["data"]["attributes"]
    assert answer.headers["location"] == made["data"]["links"]["self"] == f"/servers/{made['data']['id']}"
    assert {name: attributes[name] for name in unregistered} == unregistered
    assert attributes["host_key"] == fingerprint(practice.host_key)
    assert (attributes["role"], attributes["active"], attributes["max_parallel"]) == ("production", True, 4)
    assert (attributes["reachable"], attributes["requirements_ok"], attributes["clients_count"]) == (True, True, 0)
    assert {"docker", "nginx", "sudo"} <= {row["name"] for row in attributes["requirements"]}
    assert all(row["ok"] and not row["mend"] for row in attributes["requirements"])
    operation = (await api.get(f"/operations/{operation_of(made)}"))["data"]
    assert (operation["attributes"]["kind"], operation["attributes"]["state"]) == ("prepare_server", "queued")
    assert operation["relationships"]["server"]["data"] == {"type": "servers", "id": made["data"]["id"]}
    assert (await api.get(f"/server/{made['data']['id']}/"))["data"]["id"] == made["data"]["id"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"host": "no-such-host.invalid"}, "host", "server_unreachable"),
    ({"host": "a..b"}, "host", "server_unreachable"),
    ({"host": "169.254.169.254"}, "host", "address_refused"),
    ({"host": "10.0.0.1"}, "host", "address_refused"),
    ({"host": "::ffff:10.0.0.1"}, "host", "address_refused"),
    ({"host": "0.0.0.0"}, "host", "address_refused"),
    ({"port": 5432}, "port", "address_refused"),
    ({"username": "root"}, "username", "login_refused"),
    ({"host_key": other_key()}, "host_key", "host_key_changed"),
    ({"host_key": "ssh-ed25519 AAAA"}, "host_key", "invalid_host_key"),
    ({"host_key": "no key"}, "host_key", "invalid_host_key"),
    ({"host": "a b"}, "host", "invalid_host"),
    ({"host": "-oProxyCommand=x"}, "host", "invalid_host"),
    ({"host": ""}, "host", "invalid_host"),
    ({"port": 0}, "port", "invalid_value"),
    ({"port": 65536}, "port", "invalid_value"),
    ({"port": "22"}, "port", "invalid_value"),
    ({"username": "Root;"}, "username", "invalid_value"),
    ({"name": "a b"}, "name", "invalid_value"),
    ({"name": "x\n"}, "name", "invalid_value"),
    ({"database_engine": "oracle"}, "database_engine", "invalid_value"),
    ({"tls": None}, "tls", "invalid_value"),
    ({"role": "nothing"}, "role", "invalid_value"),
    ({"base_domain": "Cloud.Example"}, "base_domain", "invalid_domain"),
    ({"base_domain": "localhost"}, "base_domain", "invalid_domain"),
    ({"base_domain": "10.20.30.40"}, "base_domain", "invalid_domain"),
    ({"base_domain": "xn--a.example.org"}, "base_domain", "invalid_domain"),
    ({"max_clients": 0}, "max_clients", "invalid_value"),
    ({"max_parallel": 65}, "max_parallel", "invalid_value"),
    ({"active": "yes"}, "active", "invalid_value"),
    ({"load": 1}, "load", "unknown_field"),
]


@pytest.mark.parametrize("form", ["flat", "document"])
@pytest.mark.parametrize(("change", "field", "code"), WRONG)
async def test_a_wrong_field_is_named_and_no_row_is_made(
    api: Api, unregistered: dict[str, Any], change: dict[str, Any], field: str, code: str, form: str
) -> None:
    flat, before = {**unregistered, **change}, await count(api, Server)
    options = {"json": flat} if form == "flat" else as_document("servers", flat)
    pointer = f"/{field}" if form == "flat" else f"/data/attributes/{field}"
    began = time.monotonic()
    assert await api.refused("POST", "/servers/", 422, **options) == [(code, pointer)]
    assert time.monotonic() - began < 15
    assert await count(api, Server) == before


async def test_a_port_at_which_no_ssh_server_answers_is_named(
    api: Api, unregistered: dict[str, Any], web_port: int, silent_port: int
) -> None:
    for port, field in ((free_port(), "port"), (web_port, "port"), (silent_port, "host")):
        wrong = {**unregistered, "port": port}
        assert await api.refused("POST", "/servers/", 422, json=wrong) == [("server_unreachable", f"/{field}")]
        with_key = {**wrong, "host_key": other_key()}
        assert await api.refused("POST", "/servers/", 422, json=with_key) == [("server_unreachable", f"/{field}")]
    assert await count(api, Server) == 0


async def test_every_missing_field_is_named(api: Api) -> None:
    refused = await api.refused("POST", "/servers/", 422, json={"port": 22})
    assert refused == [("required", "")] * 4
    errors = (await api.http.post("/servers/", json={"port": 22})).json()["errors"]
    assert [error["meta"]["field"] for error in errors] == ["name", "host", "database_engine", "base_domain"]


async def test_a_name_and_an_address_are_taken_once(api: Api, unregistered: dict[str, Any]) -> None:
    made = await asyncio.gather(*(api.http.post("/servers/", json=unregistered) for _ in range(3)))
    assert sorted(answer.status_code for answer in made) == [201, 409, 409]
    again = {**unregistered, "name": "another"}
    assert await api.refused("POST", "/servers/", 409, json=again) == [("server_name_taken", None)]
    async with api.sessions.begin() as session:
        other = await make_server(session)
    taken = {"name": unregistered["name"]}
    assert await api.refused("PATCH", f"/servers/{other.id}", 409, json=taken) == [("server_name_taken", None)]
    assert (await api.get(f"/servers/{other.id}"))["data"]["attributes"]["name"] == other.name


async def test_an_update_looks_only_where_the_way_to_the_server_changes(
    api: Api, unregistered: dict[str, Any], practice: PracticeServer
) -> None:
    made = await api.post("/servers/", unregistered)
    path, id_ = f"/servers/{made['data']['id']}", made["data"]["id"]
    practice.forget_commands()
    for method, address, body in (("PATCH", path, {}), ("POST", "/servers/", {"id": id_})):
        changed = (await api.ask(method, address, 200, json={**body, "max_clients": 7, "active": False})).json()
        assert changed["data"]["attributes"]["max_clients"] == 7
        assert operation_of(changed) == operation_of(made)
    form = {**unregistered, "role": "stage", "max_parallel": 2}
    changed = (await api.ask("PATCH", path, 200, **as_document("servers", {"id": id_, **form}))).json()
    assert (changed["data"]["attributes"]["role"], operation_of(changed)) == ("stage", operation_of(made))
    assert practice.commands() == []
    assert operation_of((await api.ask("PATCH", path, 200, json={})).json()) == operation_of(made)
    assert practice.commands() != []
    for change, field, code in (
        ({"username": "root"}, "username", "login_refused"),
        ({"host": "10.0.0.1"}, "host", "address_refused"),
        ({"port": free_port()}, "port", "server_unreachable"),
        ({"host_key": other_key()}, "host_key", "host_key_changed"),
    ):
        assert await api.refused("PATCH", path, 422, json=change) == [(code, f"/{field}")]
    after = (await api.get(path))["data"]["attributes"]
    assert {name: after[name] for name in unregistered} == unregistered
    assert after["host_key_changed"] is False


async def test_an_update_refuses_null_and_ids_that_are_not_there(api: Api, unregistered: dict[str, Any]) -> None:
    made = await api.post("/servers/", unregistered)
    path = f"/servers/{made['data']['id']}"
    for name in (*unregistered, "host_key", "active", "max_clients", "max_parallel", "role"):
        assert await api.refused("PATCH", path, 422, json={name: None}) == [("invalid_value", f"/{name}")]
    assert await api.refused("PATCH", path, 409, json={"id": "77"}) == [("id_conflict", "/id")]
    document = as_document("clients", {"id": made["data"]["id"], "name": "x"})
    assert await api.refused("PATCH", path, 409, **document) == [("type_conflict", "/data/type")]
    for id_ in ("99", 99, 2**31, 2**40, "9" * 17, "0", "-1", "x"):
        assert await api.refused("POST", "/servers/", 404, json={"id": id_, "active": True}) == [
            ("server_not_found", None)
        ]
    for wrong in ("99", "0", "-1", "x", "2147483648", "1.5", "٣"):
        assert await api.refused("PATCH", f"/servers/{wrong}", 404, json={})
        for method in ("GET", "DELETE"):
            assert await api.refused(method, f"/servers/{wrong}", 404)


async def test_the_database_system_stays_while_clients_stand_on_it(api: Api, unregistered: dict[str, Any]) -> None:
    made = await api.post("/servers/", unregistered)
    async with api.sessions.begin() as session:
        client = await make_client(session, api.vault, await session.get_one(Server, int(made["data"]["id"])))
    path = f"/servers/{made['data']['id']}"
    change = {"database_engine": "mariadb"}
    assert await api.refused("PATCH", path, 422, json=change) == [("invalid", "/database_engine")]
    assert await api.refused("DELETE", path, 409) == [("server_in_use", None)]
    assert (await api.get(path))["data"]["attributes"]["clients_count"] == 1
    async with api.sessions.begin() as session:
        await session.delete(await session.get_one(Client, client.id))
    await api.ask("DELETE", path, 204)
    assert await api.refused("DELETE", path, 404) == [("server_not_found", None)]
    assert (await api.get(f"/operations/{operation_of(made)}"))["data"]["attributes"]["kind"] == "prepare_server"


async def test_the_list_shows_active_servers_unless_asked_for_others(api: Api) -> None:
    async with api.sessions.begin() as session:
        for name, values in (
            ("list-a", {"active": True, "role": "stage"}),
            ("list-b", {"active": False, "database_engine": "mariadb"}),
            ("list-c", {"active": True, "database_engine": "mariadb"}),
        ):
            await make_server(session, name=name, **values)

    async def listed(query: str) -> list[str]:
        names = [row["attributes"]["name"] for row in (await api.get(f"/servers?{query}"))["data"]]
        return [name for name in names if name.startswith("list-")]

    assert await listed("") == ["list-a", "list-c"]
    assert await listed("filter[active]=false") == ["list-b"]
    assert await listed("filter[active]=all&sort=-name") == ["list-c", "list-b", "list-a"]
    assert await listed("filter[role]=stage") == ["list-a"]
    assert await listed("filter[role]=stage,production") == ["list-a", "list-c"]
    assert await listed("filter[database_engine]=mariadb&filter[active]=all") == ["list-b", "list-c"]
    for sort in ("id", "name", "host", "role", "active", "created_at"):
        up, down = await listed(f"sort={sort}"), await listed(f"sort=-{sort}")
        assert sorted(up) == sorted(down) == ["list-a", "list-c"]
    thin = await api.get("/servers?fields[servers]=name&page[size]=1&filter[active]=all")
    assert set(thin["data"][0]["attributes"]) == {"name"}
    assert "relationships" not in thin["data"][0]
    assert {"self", "first", "last", "next"} == set(thin["links"])
    for wrong in ("filter[active]=maybe", "filter[role]=king", "filter[database_engine]=x", "filter[role]="):
        name = wrong.partition("=")[0]
        assert await api.refused("GET", f"/servers?{wrong}", 400) == [("invalid_filter", name)]


async def test_images_are_listed_with_their_clients(
    api: Api, unregistered: dict[str, Any], calm_practice: PracticeServer
) -> None:
    made = await api.post("/servers/", unregistered)
    async with api.sessions.begin() as session:
        client = await make_client(session, api.vault, await session.get_one(Server, int(made["data"]["id"])))
    path = f"/servers/{made['data']['id']}/images"
    found = await api.get(path)
    tags = {row["id"]: row["attributes"] for row in found["data"]}
    assert set(tags) == {"alfa:1.0.0-master", "alfa:1.1.0-dev", "alfa:9.9.9-broken"}
    master = tags["alfa:1.0.0-master"]
    assert (master["version"], master["branch"], master["clients"]) == ("1.0.0-master", "master", [str(client.id)])
    assert (master["prunable"], master["size_bytes"] > 0, master["age_s"] > 0) == (False, True, True)
    assert found["meta"]["page"] == {"number": 1, "size": 25, "total": 3}
    assert len((await api.get(f"{path}?page[size]=2&page[number]=2"))["data"]) == 1
    assert await api.refused("GET", f"{path}?sort=tag", 400) == [("unknown_parameter", "sort")]
    assert await api.refused("GET", "/servers/99/images", 404) == [("server_not_found", None)]
    calm_practice.fault("image ls", "fail", stderr="Cannot connect to the Docker daemon")
    answer = await api.ask("GET", path, 503)
    assert answer.json()["errors"][0]["code"] == "server_unavailable"
    assert int(answer.headers["retry-after"]) > 0
    async with api.sessions.begin() as session:
        await session.delete(await session.get_one(Client, client.id))


@pytest.mark.parametrize("by", ["images", "clients"])
async def test_a_changed_host_key_shuts_the_server_off(
    api: Api, unregistered: dict[str, Any], practice: PracticeServer, by: str
) -> None:
    made = await api.post("/servers/", unregistered)
    path = f"/servers/{made['data']['id']}"
    async with api.sessions.begin() as session:
        (await session.get_one(Server, int(made["data"]["id"]))).host_key = other_key()
    new = {"name": f"late-{by}", "email": "lab@example.org", "server_id": int(made["data"]["id"])}
    first: dict[str, Any] = {"method": "GET", "path": f"{path}/images"}
    second: dict[str, Any] = {"method": "POST", "path": "/clients/", "json": new}
    for request in (first, second) if by == "images" else (second, first):
        assert await api.refused(status=502, **request) == [("host_key_changed", None)]
        after = (await api.get(path))["data"]["attributes"]
        assert (after["host_key_changed"], after["reachable"]) == (True, False)
    assert await count(api, Client) == 0
    assert await api.refused("PATCH", path, 422, json={"tls": "certbot"}) == [("host_key_changed", "")]
    mended = (await api.ask("PATCH", path, 200, json={"host_key": practice.host_key})).json()
    assert mended["data"]["attributes"]["host_key_changed"] is False
    await api.get(f"{path}/images")


async def test_a_server_that_is_away_cannot_be_asked_for_images(
    api: Api, unregistered: dict[str, Any], practice: PracticeServer
) -> None:
    made = await api.post("/servers/", unregistered)
    practice.stop()
    try:
        refused = await api.refused("GET", f"/servers/{made['data']['id']}/images", 503)
        assert refused == [("server_unavailable", None)]
        new = {"name": "offline", "email": "lab@example.org", "server_id": int(made["data"]["id"])}
        created = (await api.post("/clients/", new))["data"]["attributes"]
        assert (created["image"], created["status"]) == ("1.0.0-master", "creating")
        unchanged = {**unregistered, "active": False, "max_clients": 3}
        quiet = (await api.ask("PATCH", f"/servers/{made['data']['id']}", 200, json=unchanged)).json()
        assert quiet["data"]["attributes"]["active"] is False
        moved = {"tls": "certbot"}
        assert await api.refused("PATCH", f"/servers/{made['data']['id']}", 422, json=moved) == [
            ("server_unreachable", "")
        ]
    finally:
        practice.start()


async def test_the_public_key_is_one_line_of_text(api: Api) -> None:
    answer = await api.ask("GET", "/ssh_public_key", 200, headers={"Accept": "text/plain"})
    assert answer.text.startswith("ssh-ed25519 AAAA")
    assert answer.text.count("\n") == 1
    assert await api.refused("GET", "/ssh_public_key", 406, headers={"Accept": JSONAPI}) == [
        ("not_acceptable", "Accept")
    ]


async def test_a_repeat_with_a_key_registers_one_server(api: Api, unregistered: dict[str, Any]) -> None:
    headers, before = {"Idempotency-Key": "register-1"}, await count(api, Operation)
    made = [await api.post("/servers/", unregistered, headers=headers) for _ in range(2)]
    assert made[0] == made[1]
    assert await count(api, Operation) == before + 1
    other = {**unregistered, "name": "another"}
    assert await api.refused("POST", "/servers/", 422, json=other, headers=headers) == [
        ("idempotency_key_reused", "Idempotency-Key")
    ]
