"""The last day of use: set, and every change of it told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import delete, func, select, update

from alfa_cloud.models import Client, ExpireDate, Operation
from alfa_cloud.specs import ClientStatus
from tests.api.resources import JSONAPI, Api, operation_of
from tests.factories import make_client, make_server

pytest_plugins = ["tests.fixtures.api"]


@pytest.fixture
async def client_id(api: Api) -> AsyncIterator[int]:
    """A client that is alive, on a server that is not."""
    async with api.sessions.begin() as session:
        client = await make_client(session, api.vault, await make_server(session))
        found = client.id
    yield found
    async with api.sessions.begin() as session:
        await session.execute(delete(Client))


async def operations(api: Api, client_id: int) -> int:
    async with api.sessions() as session:
        query = select(func.count()).select_from(Operation).where(Operation.client_id == client_id)
        return await session.scalar(query) or 0


async def test_a_date_counts_at_once_and_every_change_is_told(api: Api, client_id: int) -> None:
    path = f"/clients/{client_id}/expire_date"
    who = {"X-Actor": quote("Анна")}
    first = await api.post(path, {"expire_date": "2031-02-28", "comment": "первый год"}, 200, headers=who)
    assert first["data"]["attributes"]["expire_date"] == "2031-02-28"
    assert first["data"]["attributes"]["blocked"] is False
    operation = (await api.get(f"/operations/{operation_of(first)}"))["data"]["attributes"]
    assert (operation["kind"], operation["state"]) == ("set_expire_date", "queued")
    await api.post(path, {"expire_date": None}, 200)
    history = await api.get(f"/clients/{client_id}/expire_dates_history")
    rows = [row["attributes"] for row in history["data"]]
    assert [(row["old_date"], row["new_date"], row["comment"], row["actor"]) for row in rows] == [
        ("2031-02-28", None, "", None),
        (None, "2031-02-28", "первый год", "Анна"),
    ]
    assert history["data"][0]["type"] == "expire_dates"
    assert rows[0]["created_at"] > rows[1]["created_at"]
    assert await operations(api, client_id) == 2


async def test_the_same_date_again_changes_nothing(api: Api, client_id: int) -> None:
    path = f"/clients/{client_id}/expire_date"
    for _ in range(2):
        await api.post(path, {"expire_date": "2031-02-28"}, 200)
    assert len((await api.get(f"{path}s_history"))["data"]) == 1
    assert await operations(api, client_id) == 1


async def test_as_a_document_too(api: Api, client_id: int) -> None:
    body = {"data": {"type": "commands", "attributes": {"expire_date": "2031-01-01", "comment": "x"}}}
    path = f"/clients/{client_id}/expire_date"
    answer = await api.ask("POST", path, 200, json=body, headers={"Content-Type": JSONAPI})
    assert answer.json()["data"]["attributes"]["expire_date"] == "2031-01-01"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ""),
        ({"expire_date": "31.12.2030"}, "/expire_date"),
        ({"expire_date": "2030-02-30"}, "/expire_date"),
        ({"expire_date": 20301231}, "/expire_date"),
        ({"expire_date": "0"}, "/expire_date"),
        ({"expire_date": "1924905600"}, "/expire_date"),
        ({"expire_date": "2030-12-31T00:00:00"}, "/expire_date"),
        ({"expire_date": ""}, "/expire_date"),
        ({"expire_date": "2030-12-31", "comment": "x" * 501}, "/comment"),
        ({"expire_date": "2030-12-31", "comment": "a\x07b"}, "/comment"),
    ],
)
async def test_what_cannot_be(api: Api, client_id: int, body: dict[str, Any], place: str) -> None:
    refused = await api.refused("POST", f"/clients/{client_id}/expire_date", 422, json=body)
    assert [found for _, found in refused] == [place]
    assert await operations(api, client_id) == 0


async def test_a_client_that_is_not_alive_has_to_wait(api: Api, client_id: int) -> None:
    async with api.sessions.begin() as session:
        await session.execute(update(Client).values(status=ClientStatus.CREATING))
    refused = await api.refused("POST", f"/clients/{client_id}/expire_date", 409, json={"expire_date": None})
    assert refused[0][0] == "client_state"
    for method, path in (("POST", "/clients/999999/expire_date"), ("GET", "/clients/999999/expire_dates_history")):
        options = {"json": {"expire_date": None}} if method == "POST" else {}
        assert (await api.refused(method, path, 404, **options))[0][0] == "client_not_found"


async def test_the_history_has_pages(api: Api, client_id: int) -> None:
    async with api.sessions.begin() as session:
        session.add_all(ExpireDate(client_id=client_id, comment=str(number)) for number in range(7))
    page = await api.get(f"/clients/{client_id}/expire_dates_history?page[size]=3&page[number]=2")
    assert [row["attributes"]["comment"] for row in page["data"]] == ["3", "2", "1"]
    assert page["meta"]["page"] == {"number": 2, "size": 3, "total": 7}


async def test_a_client_may_begin_with_a_last_day(api: Api, server_id: int) -> None:
    body = {"name": "born", "email": "lab@example.org", "server_id": server_id, "expire_date": "2031-12-31"}
    made = await api.post("/clients/", body, headers={"X-Actor": "anna"})
    history = await api.get(f"/clients/{made['data']['id']}/expire_dates_history")
    found = [row["attributes"] for row in history["data"]]
    assert [(row["old_date"], row["new_date"], row["actor"]) for row in found] == [(None, "2031-12-31", "anna")]
    async with api.sessions.begin() as session:
        await session.execute(delete(Client))
