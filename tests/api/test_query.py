"""Query parameters: pages, sorting, sparse fieldsets, and 400 for whatever nobody declared."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from tests.api.toy import NewLab, Toy


@pytest.fixture(autouse=True)
def _labs(toy: Toy) -> None:
    toy.labs.update({number: NewLab(name=f"lab-{number:02}", server_id=1, title="т") for number in range(1, 8)})


@pytest.mark.parametrize(
    ("query", "parameter", "code"),
    [
        ("x=1", "x", "unknown_parameter"),
        ("page=1", "page", "unknown_parameter"),
        ("page[offset]=1", "page[offset]", "unknown_parameter"),
        ("filter[name]=a", "filter[name]", "unknown_parameter"),
        ("filter=a", "filter", "unknown_parameter"),
        ("fields[clients]=name", "fields[clients]", "unknown_parameter"),
        ("fields[labs]=name,password", "fields[labs]", "invalid_parameter"),
        ("sort=password", "sort", "invalid_parameter"),
        ("sort=name,-name", "sort", "invalid_parameter"),
        ("sort=--name", "sort", "invalid_parameter"),
        ("include=operation", "include", "invalid_parameter"),
        ("include=server.client", "include", "invalid_parameter"),
        ("page[number]=0", "page[number]", "invalid_parameter"),
        ("page[number]=-1", "page[number]", "invalid_parameter"),
        ("page[number]=x", "page[number]", "invalid_parameter"),
        ("page[number]=", "page[number]", "invalid_parameter"),
        ("page[number]=99999999999999999999", "page[number]", "invalid_parameter"),
        ("page[number]=%D9%A1", "page[number]", "invalid_parameter"),
        ("page[size]=0", "page[size]", "invalid_parameter"),
        ("page[size]=201", "page[size]", "invalid_parameter"),
        ("page[size]=1.5", "page[size]", "invalid_parameter"),
        ("page[size]=1&page[size]=2", "page[size]", "invalid_parameter"),
        ("filter[q]=a%00b", "filter[q]", "invalid_parameter"),
        ("filter[q]=" + "x" * 4001, "filter[q]", "invalid_parameter"),
    ],
)
async def test_a_wrong_parameter_is_400_and_named(
    client: httpx.AsyncClient, query: str, parameter: str, code: str
) -> None:
    answer = await client.get(f"/labs?{query}")
    assert answer.status_code == 400
    assert [(error["source"], error["code"]) for error in answer.json()["errors"]] == [({"parameter": parameter}, code)]


async def test_all_wrong_parameters_are_told_at_once(client: httpx.AsyncClient) -> None:
    answer = await client.get("/labs?a=1&b=2")
    assert [error["source"]["parameter"] for error in answer.json()["errors"]] == ["a", "b"]
    answer = await client.get("/labs?page[size]=0&sort=x&include=y")
    assert len(answer.json()["errors"]) == 3


async def test_ten_thousand_parameters_are_one_error(client: httpx.AsyncClient) -> None:
    answer = await client.get("/labs?" + "&".join(f"p{number}=1" for number in range(5_000)))
    assert answer.status_code == 400
    assert len(answer.json()["errors"]) == 1


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/servers/1/deploy?wait_s=x", "wait_s"),
        ("/servers/1/deploy?waits=1", "waits"),
        ("/labs/1?page[size]=1", "page[size]"),
        ("/servers/1?include=x", "include"),
        ("/whoami?x", "x"),
    ],
)
async def test_our_own_parameters_are_known_and_typed(
    client: httpx.AsyncClient, toy: Toy, path: str, parameter: str
) -> None:
    for method in ("GET", "POST") if "deploy" in path else ("GET",):
        answer = await client.request(method, path)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["source"] == {"parameter": parameter}
    assert toy.commands == []


@pytest.mark.parametrize(
    ("query", "links"),
    [
        ("", {"self": 1, "first": 1, "last": 1}),
        ("page[size]=3", {"self": 1, "first": 1, "last": 3, "next": 2}),
        ("page[size]=3&page[number]=2", {"self": 2, "first": 1, "last": 3, "prev": 1, "next": 3}),
        ("page[size]=3&page[number]=3", {"self": 3, "first": 1, "last": 3, "prev": 2}),
        ("page[size]=3&page[number]=9", {"self": 9, "first": 1, "last": 3, "prev": 3}),
        ("page[size]=7", {"self": 1, "first": 1, "last": 1}),
    ],
)
async def test_links_lead_to_pages_that_exist(client: httpx.AsyncClient, query: str, links: dict[str, int]) -> None:
    answer = await client.get(f"/labs?{query}")
    given = answer.json()["links"]
    size = answer.json()["meta"]["page"]["size"]
    assert given == {name: f"/labs?page[number]={number}&page[size]={size}" for name, number in links.items()}
    assert answer.json()["meta"]["page"] == {"number": links["self"], "size": size, "total": 7}
    for link in given.values():
        assert (await client.get(link)).status_code == 200


async def test_links_keep_the_other_parameters(client: httpx.AsyncClient) -> None:
    query = f"filter[q]={quote('а&б')}&sort=-name,title&fields[labs]=name&page[size]=2"
    following = (await client.get(f"/labs/?{query}")).json()["links"]["next"]
    assert following.startswith("/labs/?filter[q]=%D0%B0%26%D0%B1&sort=-name,title&fields[labs]=name&")
    answer = await client.get(following)
    assert [set(row["attributes"]) for row in answer.json()["data"]] == [{"name"}, {"name"}]


async def test_sparse_fieldsets_thin_every_resource_of_the_type(client: httpx.AsyncClient) -> None:
    answer = await client.get("/labs?fields[labs]=name,server&fields[racks]=&include=server&page[size]=1")
    document = answer.json()
    assert document["data"][0]["attributes"] == {"name": "lab-01"}
    assert set(document["data"][0]["relationships"]) == {"server"}
    assert set(document["included"][0]) == {"type", "id", "links"}
    single = (await client.get("/labs/1?fields[labs]=server")).json()["data"]
    assert "attributes" not in single
    assert int((await client.get("/labs/1?fields[labs]=server")).headers["content-length"]) < 300


async def test_members_are_absent_not_null_and_nulls_stay(client: httpx.AsyncClient) -> None:
    document = (await client.get("/labs/1")).json()
    assert set(document) == {"data", "links", "jsonapi"}
    assert document["data"]["attributes"]["expire_date"] is None
    assert document["data"]["relationships"]["server"] == {
        "data": {"type": "servers", "id": "1"},
        "links": {"related": "/servers/1"},
    }
    assert "included" in (await client.get("/labs/1?include=server")).json()
