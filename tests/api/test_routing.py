"""Slashes, spellings, methods, and the OpenAPI document."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import httpx
import jsonschema
import pytest
from fastapi import FastAPI

from alfa_cloud.api.docs import PAGE_POLICY
from alfa_cloud.api.routing import tolerant
from tests.api.conftest import client_of
from tests.api.toy import EXAMPLE, NewLab, Toy


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/labs", 200),
        ("/labs/", 200),
        ("/labs//", 404),
        ("//labs", 404),
        ("/labs%0A", 404),
        ("/LABS", 404),
        ("/labs;x=1", 404),
        ("/labs/1", 200),
        ("/labs/1/", 200),
        ("/labs/01", 404),
        ("/labs/0", 404),
        ("/labs/-1", 404),
        ("/labs/1.0", 404),
        ("/labs/1_0", 404),
        ("/labs/%201", 404),
        ("/labs/9999999999", 404),
        ("/labs/99999999999999999999999", 404),
        ("/labs/%D9%A1", 404),
        ("/server/1", 200),
        ("/servers/1/", 200),
        ("/serverss/1", 404),
        ("/works/x/log", 404),
        ("/works/{00000000-0000-0000-0000-000000000000}/log", 404),
    ],
)
async def test_paths(client: httpx.AsyncClient, toy: Toy, path: str, status: int) -> None:
    toy.labs[1] = NewLab(name="a", server_id=1)
    answer = await client.get(path)
    assert answer.status_code == status
    assert (await client.head(path)).status_code == status
    if status == 404:
        assert answer.json()["errors"][0]["code"] == "not_found"


async def test_commands_run_by_get_and_post_in_every_spelling(client: httpx.AsyncClient, toy: Toy) -> None:
    for path in ("/server/1/deploy", "/server/1/deploy/", "/servers/1/deploy", "/servers/1/deploy/"):
        for method in ("GET", "POST"):
            answer = await client.request(method, path)
            assert answer.status_code == 202
            assert answer.headers["location"] == answer.headers["content-location"]
        for method in ("HEAD", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"):
            answer = await client.request(method, path)
            assert answer.status_code == 405
            assert answer.headers["allow"] == "GET, POST"
        navigation = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
        assert (await client.get(path, headers=navigation)).status_code == 403
    assert toy.commands == ["GET", "POST"] * 4


async def test_a_path_that_swallows_slashes_leaves_the_last_one(client: httpx.AsyncClient) -> None:
    for path in ("/clients/1/switch/a.example%2Falfa:1.2", "/clients/1/switch/a.example/alfa:1.2/"):
        answer = await client.get(path)
        assert answer.json()["data"]["attributes"]["host"] == "a.example/alfa:1.2"
    assert (await client.get("/clients/1/switch/")).status_code == 404


async def test_head_is_get_without_a_body(client: httpx.AsyncClient) -> None:
    for path in ("/labs", "/healthz", f"/works/{uuid4()}/log", "/docs", "/openapi.json"):
        head, get = await client.head(path), await client.get(path)
        assert head.status_code == get.status_code == 200
        assert head.content == b""
        assert head.headers.get("content-length") == get.headers.get("content-length")


def test_a_tolerant_pattern_ends_where_the_path_ends() -> None:
    pattern = tolerant(re.compile("^/servers/(?P<server_id>[^/]+)$"))
    assert pattern.match("/server/1/")
    assert not pattern.match("/server/1/x")
    assert not tolerant(re.compile("^/servers$")).match("/servers\n")


async def openapi(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = answer.json()
    return document


async def test_the_document_shows_each_operation_once(client: httpx.AsyncClient) -> None:
    document = await openapi(client)
    assert document["openapi"].startswith("3.1")
    assert "/server/{server_id}/deploy" in document["paths"]
    assert "/servers/{server_id}/deploy" not in document["paths"]
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert {"deploy", "deploy_post", "list_labs", "read_lab"} <= set(ids)
    assert "head" not in {method for path in document["paths"].values() for method in path}
    assert [tag["name"] for tag in document["tags"]] == ["clients", "service"]
    assert document["components"]["securitySchemes"]["basic"]["scheme"] == "basic"
    assert document["security"] == [{"basic": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []


async def test_every_reference_of_the_document_leads_somewhere(client: httpx.AsyncClient) -> None:
    document = await openapi(client)
    references = set(re.findall(r'"\$ref":\s*"#/([^"]+)"', (await client.get("/openapi.json")).text))
    assert len(references) > 15
    for reference in references:
        here = document
        for key in reference.split("/"):
            here = here[key]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert not [name for name in document["components"]["schemas"] if "[" in name or "-" in name]


async def test_both_forms_of_a_body_stand_in_the_document(client: httpx.AsyncClient) -> None:
    document = await openapi(client)
    content = document["paths"]["/labs/"]["post"]["requestBody"]["content"]
    flat, full = content["application/json"], content["application/vnd.api+json"]
    assert flat["example"] == EXAMPLE
    assert full["example"]["data"]["relationships"] == {"server": {"data": {"type": "servers", "id": "1"}}}
    assert full["example"]["data"]["attributes"] == {"name": "alpha", "title": "Альфа"}
    for form in (flat, full):
        jsonschema.validate(form["example"], {**form["schema"], "components": document["components"]})
    schemas = document["components"]["schemas"]
    assert schemas["NewLab"]["additionalProperties"] is False
    assert schemas["NewLabDocument"]["properties"]["data"]["properties"]["type"] == {"const": "labs"}
    assert schemas["NewLab"]["properties"]["password"]["anyOf"][0]["writeOnly"] is True


async def test_what_every_operation_can_answer_is_told(client: httpx.AsyncClient) -> None:
    paths = (await openapi(client))["paths"]
    assert set(paths["/labs"]["get"]["responses"]) == {"200", "400", "401", "403", "406", "429", "500", "503"}
    assert {"201", "409", "413", "415", "422"} <= set(paths["/labs/"]["post"]["responses"])
    assert {"202", "404", "409", "422"} <= set(paths["/server/{server_id}/deploy"]["get"]["responses"])
    log = paths["/works/{work_id}/log"]["get"]["responses"]["200"]["content"]
    assert set(log) == {"application/vnd.api+json", "text/event-stream", "text/plain"}
    assert set(paths["/ssh_public_key"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    names = [each.get("name", each.get("$ref")) for each in paths["/labs"]["get"]["parameters"]]
    assert {"page[number]", "page[size]", "sort", "filter[q]", "include", "fields[labs]"} <= set(names)
    posts = [each.get("$ref") for each in paths["/server/{server_id}/deploy"]["post"]["parameters"]]
    assert "#/components/parameters/IdempotencyKey" in posts


async def test_answers_are_valid_against_the_document(client: httpx.AsyncClient, toy: Toy) -> None:
    toy.labs[1] = NewLab(name="a", server_id=1)
    document = await openapi(client)
    cases = [
        ("GET", "/labs?include=server&page[size]=1", "/labs"),
        ("GET", "/labs?fields[labs]=name", "/labs"),
        ("GET", "/labs/1?include=server", "/labs/{lab_id}"),
        ("GET", "/labs/7", "/labs/{lab_id}"),
        ("GET", "/labs?x=1", "/labs"),
        ("POST", "/servers/1/deploy", "/server/{server_id}/deploy"),
        ("GET", "/healthz", "/healthz"),
    ]
    for method, path, template in cases:
        answer = await client.request(method, path)
        described = document["paths"][template][method.lower()]["responses"][str(answer.status_code)]
        if "$ref" in described:
            described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
        schema = described["content"][answer.headers["content-type"]]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})


async def test_swagger_ui_asks_no_outside_host_and_runs_nothing_inline(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs/")
    assert page.headers["content-security-policy"] == PAGE_POLICY
    assert "unsafe" not in PAGE_POLICY
    assert "http" not in page.text
    files = re.findall(r'(?:src|href)="(/[^"]+)"([^>]*)>', page.text)
    assert len(files) == 4
    for path, rest in files:
        assert 'crossorigin="anonymous"' in rest  # else the browser asks in mode no-cors, which the origin door refuses
        headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "script"}
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")
    assert not re.search(r"<script[^>]*>[^<]", page.text)


async def test_the_documentation_is_behind_the_login(app: FastAPI) -> None:
    async with client_of(app, Authorization=None) as stranger:
        for path in ("/docs", "/docs/", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/openapi.json"):
            assert (await stranger.get(path)).status_code == 401
