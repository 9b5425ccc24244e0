"""Media types, headers that every answer bears, and errors that tell nothing of the inside."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from alfa_cloud.api.envelope import HSTS, SECURITY_HEADERS
from alfa_cloud.api.jsonapi.negotiation import Media, choose
from alfa_cloud.errors import AlfaCloudError
from tests.api.conftest import client_of
from tests.api.toy import Toy, make_app

ALL = (Media.JSONAPI, Media.SSE, Media.TEXT)
JSONAPI = "application/vnd.api+json"


@pytest.mark.parametrize(
    ("accept", "json_only", "log"),
    [
        (None, 200, Media.JSONAPI),
        ("", 200, Media.JSONAPI),
        ("*/*", 200, Media.JSONAPI),
        ("application/*", 200, Media.JSONAPI),
        (JSONAPI, 200, Media.JSONAPI),
        ("application/json", 200, Media.JSONAPI),
        ("application/json; charset=utf-8", 200, Media.JSONAPI),
        (f'{JSONAPI}; profile="https://a.example/p"', 200, Media.JSONAPI),
        (f"{JSONAPI}; charset=utf-8", 406, None),
        (f"{JSONAPI}; charset=utf-8, */*", 406, None),
        (f"{JSONAPI}; charset=utf-8, {JSONAPI}", 200, Media.JSONAPI),
        (f'{JSONAPI}; ext="https://a.example/e"', 406, None),
        (f'{JSONAPI}; ext="a,b", {JSONAPI}; q=0.1', 200, Media.JSONAPI),
        (f"{JSONAPI}; q=0", 406, None),
        (f"{JSONAPI}; q=x", 406, None),
        ("text/html,application/xhtml+xml,*/*;q=0.8", 200, Media.JSONAPI),
        ("text/html", 406, None),
        ("text/event-stream", 406, Media.SSE),
        ("text/event-stream, application/json", 200, Media.JSONAPI),
        ("text/event-stream, */*;q=0.1", 200, Media.JSONAPI),
        ("TEXT/Event-Stream; charset=utf-8", 406, Media.SSE),
        ("text/plain", 406, Media.TEXT),
        ("text/*", 406, Media.TEXT),
        ("text/plain;q=0.5, text/event-stream", 406, Media.SSE),
        ("image/png;;;=,,\x7f", 406, None),
    ],
)
async def test_accept(client: httpx.AsyncClient, accept: str | None, json_only: int, log: Media | None) -> None:
    headers = {} if accept is None else {"Accept": accept}
    if accept is None:
        del client.headers["accept"]
    answer = await client.get("/labs", headers=headers)
    assert answer.status_code == json_only
    assert answer.headers["content-type"] == JSONAPI
    if log is None:
        assert (
            await client.get("/works/" + "0" * 8 + "-0000" * 3 + "-" + "0" * 12 + "/log", headers=headers)
        ).status_code == 406
    else:
        assert choose(accept, ALL) is log


async def test_plain_text_alone(client: httpx.AsyncClient) -> None:
    for accept, status in (("*/*", 200), ("text/plain", 200), ("application/json", 406)):
        answer = await client.get("/ssh_public_key/", headers={"Accept": accept})
        assert answer.status_code == status
    assert (await client.get("/ssh_public_key")).headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ('Application/JSON; Charset="UTF-8"', 201),
        ("application/json; charset=cp1251", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("", 415),
        (None, 415),
        (f"{JSONAPI}; charset=utf-8", 415),
        (f'{JSONAPI}; ext="https://a.example/e"', 415),
        ("application/hal+json", 415),
        ("*/*", 415),
        ("application/json\x7f", 415),
    ],
)
async def test_content_type(client: httpx.AsyncClient, content_type: str | None, status: int) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await client.post("/labs", content=b'{"name": "a", "server_id": 1}', headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert answer.json()["errors"][0]["source"] == {"header": "Content-Type"}


async def test_compressed_bodies_are_415(client: httpx.AsyncClient) -> None:
    for encoding in ("gzip", "br", "deflate, gzip"):
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        answer = await client.post("/labs", content=b"\x1f\x8b", headers=headers)
        assert answer.status_code == 415
        assert answer.json()["errors"][0]["source"] == {"header": "Content-Encoding"}


CLASSES = [
    ("GET", "/labs", {}, 200),
    ("GET", "/docs", {}, 200),
    ("GET", "/openapi.json", {}, 200),
    ("GET", "/healthz", {}, 200),
    ("GET", "/labs?x=1", {}, 400),
    ("GET", "/labs", {"Authorization": "x"}, 401),
    ("GET", "/labs", {"Origin": "https://evil.example"}, 403),
    ("GET", "/labs/9", {}, 404),
    ("GET", "/nope", {}, 404),
    ("PUT", "/labs", {}, 405),
    ("GET", "/labs", {"Accept": "text/html"}, 406),
    ("GET", "/fail?kind=conflict", {}, 409),
    ("POST", "/labs", {"Content-Length": "70000"}, 413),
    ("POST", "/labs", {}, 415),
    ("POST", "/labs", {"Content-Type": "application/json"}, 422),
    ("GET", "/fail", {}, 500),
    ("GET", "/fail?kind=database", {}, 503),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), CLASSES)
async def test_every_answer_bears_the_headers_and_tells_nothing(
    client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    content = b"x" * 70_000 if status == 413 else b"{}" if method == "POST" else None
    with capture_logs() as logs:
        answer = await client.request(method, path, headers={"X-Request-ID": "req.1", **headers}, content=content)
    assert answer.status_code == status
    for name, value in SECURITY_HEADERS.items():
        if path != "/docs" or name != "Content-Security-Policy":
            assert answer.headers[name] == value
    assert answer.headers["strict-transport-security"] == HSTS
    assert answer.headers["vary"] == "Accept, Origin, Sec-Fetch-Site"
    assert answer.headers["x-request-id"] == "req.1"
    assert "server" not in answer.headers
    if status >= 400:
        check_errors(answer, status)
    traced = [entry for entry in logs if entry["event"] == "request_failed"]
    assert bool(traced) is (status >= 500)
    for entry in traced:
        assert "Error" in entry["traceback"]
        assert "Basic " not in entry["traceback"]


def check_errors(answer: httpx.Response, status: int) -> None:
    assert answer.headers["content-type"] == JSONAPI
    for error in answer.json()["errors"]:
        assert set(error) <= {"id", "status", "code", "title", "detail", "source", "meta"}
        assert error["status"] == str(status)
        assert error["meta"]["request_id"] == "req.1"
        assert len(error["id"]) == 36
    for word in ("<", ">", "Traceback", "psycopg", "passwd", "RuntimeError", "/run"):
        assert word not in answer.text


async def test_statuses_bring_the_headers_they_need(client: httpx.AsyncClient) -> None:
    assert (await client.put("/labs")).headers["allow"] == "GET, HEAD, POST"
    assert (await client.put("/labs/1/")).headers["allow"] == "DELETE, GET, HEAD, PATCH"
    assert (await client.get("/fail?kind=database")).headers["retry-after"] == "5"
    conflict = (await client.get("/fail?kind=conflict")).json()["errors"][0]
    assert conflict["meta"]["why"] == "busy"
    assert conflict["detail"] == "Not now: <b>."


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ж".encode(), "a\tb", "<script>"])
async def test_a_request_id_that_is_not_well_formed_is_made_anew(client: httpx.AsyncClient, given: Any) -> None:
    answer = await client.get("/whoami", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == answer.json()["meta"]["request_id"]
    assert len(answer.headers["x-request-id"]) == 36


@pytest.mark.parametrize(
    ("actor", "name"),
    [
        ("%D0%90%D0%BD%D0%BD%D0%B0%20%F0%9F%91%A9", "Анна 👩"),
        ("anna", "anna"),
        ("a" * 200, "a" * 200),
        ("a" * 201, None),
        ("%D0", None),
        ("%zz", None),
        ("%", None),
        ("a%0Ab", None),
        ("%ED%A0%80", None),
        ("Анна".encode(), None),
    ],
)
async def test_the_actor_is_percent_encoded_utf8(client: httpx.AsyncClient, actor: Any, name: str | None) -> None:
    answer = await client.get("/whoami", headers={"X-Actor": actor})
    if name is None:
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["source"] == {"header": "X-Actor"}
    else:
        assert answer.json()["meta"]["actor"] == name


async def test_an_error_in_a_door_is_answered_too(toy: Toy) -> None:
    app = make_app(toy)

    def away() -> None:
        raise ConnectionRefusedError("/run/postgresql/.s.PGSQL.5432")

    app.state.session_factory = away
    async with client_of(app) as client:
        answer = await client.get("/labs")
    assert answer.status_code == 503
    assert "PGSQL" not in answer.text


async def test_the_root_of_our_errors_is_internal(toy: Toy) -> None:
    assert (AlfaCloudError.status, AlfaCloudError.code) == (500, "internal")
