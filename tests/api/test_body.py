"""Bodies in both forms: equal meanings, pointers that follow the form, and a corpus of hostile ones."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.toy import NewLab, Toy

JSON = "application/json"
JSONAPI = "application/vnd.api+json"
CANARY = "canary-7f3a"


def document(attributes: Any = None, **members: Any) -> dict[str, Any]:
    """A document of a lab on server 1."""
    given = {"type": "labs", "attributes": {"name": "alpha"} if attributes is None else attributes}
    given["relationships"] = {"server": {"data": {"type": "servers", "id": "1"}}}
    return {"data": {**given, **members}}


async def send(
    client: httpx.AsyncClient, content: Any, media: str = JSON, method: str = "POST", path: str = "/labs"
) -> httpx.Response:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return await client.request(method, path, content=raw, headers={"Content-Type": media})


def sources(answer: httpx.Response) -> list[tuple[str, str]]:
    return sorted((error["source"].get("pointer", ""), error["code"]) for error in answer.json()["errors"])


async def test_both_forms_mean_the_same(client: httpx.AsyncClient, toy: Toy) -> None:
    flat = {"name": "alpha", "server_id": 1, "expire_date": "2027-01-31", "password": "тайна"}
    attributes = {"name": "alpha", "expire_date": "2027-01-31", "password": "тайна"}
    answers = [await send(client, flat), await send(client, document(attributes), JSONAPI)]
    answers.append(await send(client, {**flat, "server_id": "1"}))
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert toy.labs[1] == toy.labs[2] == toy.labs[3]
    assert answers[0].headers["location"] == "/labs/1"
    assert "тайна" not in "".join(answer.text for answer in answers)


async def test_every_wrong_field_is_told_with_the_pointer_of_the_form(client: httpx.AsyncClient) -> None:
    wrong = {"name": CANARY + "!", "port": CANARY, "password": 5, "bogus": CANARY, "email": f"{CANARY}(x)@@y"}
    flat = await send(client, {**wrong, "server_id": CANARY})
    linked = {"server": {"data": {"type": "servers", "id": CANARY}}, "client": {"data": None}}
    doc = await send(client, document(wrong, relationships=linked), JSONAPI)
    assert flat.status_code == doc.status_code == 422
    names = [("bogus", "unknown_field"), *((name, "invalid_value") for name in ("email", "name", "password", "port"))]
    assert sources(flat) == [(f"/{name}", code) for name, code in names] + [("/server_id", "invalid_value")]
    assert sources(doc) == [
        *((f"/data/attributes/{name}", code) for name, code in names),
        ("/data/relationships/client", "unknown_field"),
        ("/data/relationships/server", "invalid_value"),
    ]
    assert CANARY not in flat.text + doc.text


@pytest.mark.parametrize(
    ("content", "media", "pointers"),
    [
        ({"port": 1}, JSON, [("", "required"), ("", "required")]),
        ({"data": {"type": "labs"}}, JSONAPI, [("/data", "required"), ("/data", "required")]),
        (
            {"data": {"type": "labs", "attributes": {}}},
            JSONAPI,
            [("/data", "required"), ("/data/attributes", "required")],
        ),
        ({"name": "a", "server_id": None}, JSON, [("/server_id", "invalid_value")]),
        ({"data": {}}, JSON, [("", "required"), ("", "required"), ("/data", "unknown_field")]),
        ({"name": "a", "server_id": True}, JSON, [("/server_id", "invalid_value")]),
        ({"name": "a", "server_id": 1, "port": "22"}, JSON, [("/port", "invalid_value")]),
        ({"name": "a", "server_id": 1, "port": 22.0}, JSON, [("/port", "invalid_value")]),
        ({"name": "a", "server_id": 1, "password": "a\nb"}, JSON, [("/password", "control_characters")]),
        ({"name": "a", "server_id": 1, "a/b~c": 1}, JSON, [("/a~1b~0c", "unknown_field")]),
        ({"name": "taken", "server_id": 1}, JSON, [("/name", "name_taken")]),
        (document({"name": "taken"}), JSONAPI, [("/data/attributes/name", "name_taken")]),
        ({"name": "wrong", "server_id": 1, "port": 1}, JSON, [("/port", "invalid"), ("/server_id", "invalid")]),
        (
            document({"name": "wrong"}),
            JSONAPI,
            [("/data/attributes", "invalid"), ("/data/relationships/server", "invalid")],
        ),
        (document({"name": "a", "server_id": 1}), JSONAPI, [("/data/attributes/server_id", "unknown_field")]),
        (
            document(relationships={"server": {"data": {"type": "labs", "id": "1"}}}),
            JSONAPI,
            [("/data/relationships/server", "invalid_relationship")],
        ),
    ],
)
async def test_pointers_lead_to_what_exists(
    client: httpx.AsyncClient, content: Any, media: str, pointers: list[tuple[str, str]]
) -> None:
    answer = await send(client, content, media)
    assert answer.status_code == 422
    assert set(sources(answer)) == set(pointers)


async def test_a_missing_field_is_named(client: httpx.AsyncClient) -> None:
    errors = (await send(client, {})).json()["errors"]
    assert {error["meta"]["field"] for error in errors} == {"name", "server_id"}


@pytest.mark.parametrize(
    ("content", "media", "status", "pointer"),
    [
        (document(type="servers"), JSONAPI, 409, "/data/type"),
        (document(type=5), JSONAPI, 400, "/data"),
        ({"data": {"attributes": {}}}, JSONAPI, 400, "/data"),
        ({"data": None}, JSONAPI, 400, ""),
        ({"data": []}, JSONAPI, 400, ""),
        ({}, JSONAPI, 400, ""),
        ([], JSONAPI, 400, ""),
        ([], JSON, 400, ""),
        ("x", JSON, 400, ""),
        (None, JSON, 400, ""),
        ({"data": {"type": "labs"}, "bogus": 1}, JSONAPI, 400, ""),
        (document(bogus=1), JSONAPI, 400, "/data"),
        (document([]), JSONAPI, 400, "/data/attributes"),
        (document(relationships=[]), JSONAPI, 400, "/data/relationships"),
        (document(id=5), JSONAPI, 400, "/data/id"),
        ({"id": [], "name": "a"}, JSON, 400, "/id"),
        ({"id": 77, "title": "x"}, JSON, 404, None),
        ({"id": "no", "title": "x"}, JSON, 404, None),
        (document({"title": "x"}, id="77", relationships={}), JSONAPI, 404, None),
        ({"id": None, "name": "a", "server_id": 1}, JSON, 201, None),
        (document({"name": "a", "@at": 1}, **{"@note": 1, "meta": {}, "lid": "x"}), JSONAPI, 201, None),
    ],
)
async def test_structure(client: httpx.AsyncClient, content: Any, media: str, status: int, pointer: str | None) -> None:
    answer = await send(client, content, media)
    assert answer.status_code == status
    if pointer is not None:
        assert answer.json()["errors"][0]["source"] == {"pointer": pointer}


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        ({"title": "Бета"}, JSON, 200),
        ({"id": 1, "title": "Бета"}, JSON, 200),
        ({"id": "1", "title": "Бета"}, JSON, 200),
        ({"id": 2, "title": "Бета"}, JSON, 409),
        ({"data": {"type": "labs", "id": "1", "attributes": {"title": "Бета"}}}, JSONAPI, 200),
        ({"data": {"type": "labs", "id": "2", "attributes": {"title": "Бета"}}}, JSONAPI, 409),
        ({"data": {"type": "labs", "attributes": {"title": "Бета"}}}, JSONAPI, 400),
        ({"data": {"type": "clients", "id": "1"}}, JSONAPI, 409),
        ({}, JSON, 200),
        ({"name": "other"}, JSON, 422),
    ],
)
async def test_a_change_names_the_resource_of_the_address(
    client: httpx.AsyncClient, toy: Toy, content: Any, media: str, status: int
) -> None:
    toy.labs[1] = NewLab(name="alpha", server_id=1, title="Альфа")
    answer = await send(client, content, media, "PATCH", "/labs/1")
    assert answer.status_code == status
    assert toy.labs[1].title == ("Бета" if status == 200 and content else "Альфа")


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        ({"password": "x"}, JSON, 204),
        ({"data": {"type": "commands", "attributes": {"password": "x"}}}, JSONAPI, 204),
        ({"data": {"type": "labs", "attributes": {"password": "x"}}}, JSONAPI, 409),
        ({"data": {"type": "commands", "id": "1", "attributes": {"password": "x"}}}, JSONAPI, 403),
        ({}, JSON, 422),
        (b"", JSON, 400),
    ],
)
async def test_bodies_of_commands(client: httpx.AsyncClient, content: Any, media: str, status: int) -> None:
    assert (await send(client, content, media, path="/labs/1/password")).status_code == status


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"", "text/plain", 202),
        ({}, JSON, 202),
        ({"data": {"type": "commands"}}, JSONAPI, 202),
        ({"data": {"type": "commands", "attributes": {}}}, JSONAPI, 202),
        ({"run_migrate": True}, JSON, 422),
        (b"a=b", "application/x-www-form-urlencoded", 415),
    ],
)
async def test_a_command_without_fields_takes_no_others(
    client: httpx.AsyncClient, toy: Toy, content: Any, media: str, status: int
) -> None:
    assert (await send(client, content, media, path="/servers/1/deploy")).status_code == status
    assert len(toy.commands) == (status == 202)


async def test_a_field_error_of_a_parameter_names_the_parameter(client: httpx.AsyncClient) -> None:
    for method in ("GET", "POST"):
        answer = await client.request(method, "/servers/1/deploy?image_name=evil")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["source"] == {"parameter": "image_name"}


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return b'{"name":' + opening * depth + b"1" + closing * depth + b"}"


def valued(value: str) -> bytes:
    return f'{{"name":"a","server_id":1,"port":{value}}}'.encode()


HOSTILE: list[bytes] = [
    b"",
    b" ",
    b"\0",
    b"null",
    b"true",
    b"1",
    b'""',
    b"[]",
    b"{",
    b"}",
    b"{]",
    b'{"a"}',
    b'{"a":}',
    b"{'a':1}",
    b'{"a":1,}',
    b'{"a":1}{"b":2}',
    b'{"a":1} x',
    b"// comment\n{}",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    "{}".encode("utf-16"),
    "{}".encode("utf-32"),
    b'{"name":"\xff"}',
    b'{"name":"\xed\xa0\x80"}',
    b'{"name":"\xc0\x80"}',
    b'{"name":"\\ud800"}',
    b'{"name":"\\udc00\\ud800"}',
    b'{"\\ud800":1}',
    b'{"name":"\\u0000"}',
    b'{"\\u0000":1}',
    b'{"name":"\x01"}',
    b'{"name":"a\nb"}',
    b'{"name":"\\x41"}',
    b'{"name":"a","name":"b"}',
    b'{"data":{"a":1,"a":2}}',
    valued("NaN"),
    valued("Infinity"),
    valued("-Infinity"),
    valued("1e999"),
    valued("-1e999"),
    valued("1e400"),
    valued("9007199254740993"),
    valued("-9007199254740993"),
    valued("1" * 5_000),
    valued("0." + "1" * 5_000),
    valued("1e99999999999"),
    valued("01"),
    valued("+1"),
    valued("0x10"),
    valued(".5"),
    valued("-0"),
    valued("1e5"),
    nested(11, b"[", b"]"),
    nested(30_000, b"[", b"]"),
    nested(5_000, b'{"a":', b"}"),
    b"[" * 60_000,
    b'{"a":' * 12_000,
    b'{"name":"' + b"a" * 60_000 + b'"}',
    b"{" + b",".join(b'"k%d":1' % number for number in range(5_000)) + b"}",
    b'{"name":"' + b"a" * 70_000 + b'"}',
    b'{"__proto__":{"x":1},"constructor":1,"__class__":1}',
    b'{"data":{"type":"labs","attributes":{"name":{"$ne":null}}}}',
    b'{"data":{"type":"labs","relationships":{"server":{"data":[{"type":"servers","id":"1"}]}}}}',
    b'{"data":{"type":"labs","relationships":{"server":{"data":{"type":"servers","id":{"a":1}}}}}}',
    b'{"data":{"type":"labs","relationships":{"server":null,"":{}}}}',
    b'{"data":{"type":["labs"],"id":{"a":1}}}',
    b'{"name":{"a":[1]},"server_id":[1],"title":null,"expire_date":0,"email":[]}',
    b'{"name":"a","server_id":1,"expire_date":"0000-00-00"}',
    b'{"name":"a","server_id":1,"expire_date":"2027-02-30"}',
    b'{"name":"a","server_id":99999999999999999999}',
    b'{"name":"a","server_id":"99999999999999999999999999"}',
]


@pytest.mark.parametrize("media", [JSON, JSONAPI])
async def test_no_hostile_body_is_taken_or_breaks_anything(client: httpx.AsyncClient, toy: Toy, media: str) -> None:
    assert len(HOSTILE) >= 60
    for raw in HOSTILE:
        for method, path in (("POST", "/labs"), ("PATCH", "/labs/1"), ("POST", "/labs/1/password")):
            answer = await send(client, raw, media, method, path)
            assert 400 <= answer.status_code < 500, (raw[:60], answer.status_code)
            assert len(answer.content) < 64_000
    assert toy.labs == {}


async def test_a_body_without_a_length_is_cut_at_64_kib(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 10_000_000:
            sent += 1_000
            yield b" " * 1_000

    answer = await client.post("/labs", content=endless(), headers={"Content-Type": JSON})
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert sent < 100_000
    whole = await client.post("/labs", content=endless(), headers={"Content-Type": JSON, "Authorization": "x"})
    assert (whole.status_code, whole.headers["connection"]) == (401, "close")
    assert "connection" not in (await send(client, {})).headers
