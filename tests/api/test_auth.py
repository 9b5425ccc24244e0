"""The login door: everything but two paths, every wrong header, one hash for equal requests."""

from __future__ import annotations

import asyncio
import base64
import unicodedata
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from alfa_cloud.api.auth import CHALLENGE, parse_basic
from alfa_cloud.db import SessionFactory
from alfa_cloud.errors import FieldError
from alfa_cloud.services import credentials
from alfa_cloud.services.credentials import CheckedLogins, StoredLogin
from alfa_cloud.specs import Secret
from tests.api.conftest import basic, client_of
from tests.api.toy import LOGIN, PASSWORD, STORED, Toy, make_app

PAIR = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
BAD = (
    None,
    "",
    "Basic",
    "Basic ",
    "Basic !!!!",
    "Basic " + PAIR[:-1],
    "Basic " + PAIR + "=",
    "Basic " + PAIR[:10] + "\t" + PAIR[10:],
    "Bearer " + PAIR,
    PAIR,
    "Basic " + base64.b64encode(b"no colon").decode(),
    "Basic " + base64.b64encode("админ:пароль".encode("cp1251")).decode(),
    "Basic " + base64.b64encode(b"\xff\xfe:\x00").decode(),
    "Basic " + base64.b64encode(b"a:" + b"x" * 600).decode(),
    "Basic " + "A" * 20_000,
    "Digest username=x",
)
PATHS = ("/nope", "/labs/", "//labs", "/labs%2f1", "/LABS", "/labs;x", "/docs", "/openapi.json", "/metrics", "/")


async def test_every_route_and_unknown_paths_need_the_login(app: FastAPI, toy: Toy) -> None:
    public = {"/healthz", "/readyz"}
    targets = {(path, method) for path in PATHS for method in ("GET", "POST", "TRACE", "OPTIONS")}
    for route in app.routes:
        path = getattr(route, "path", "").replace("{work_id}", "0190" + "0" * 28)
        if path not in public:
            targets |= {(path, method) for method in ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE")}
    async with client_of(app, Authorization=None) as stranger:
        for path, method in sorted(targets):
            for bad in BAD[:6] if path in ("/labs", "/nope") else BAD[:1]:
                headers = {} if bad is None else {"Authorization": bad}
                answer = await stranger.request(method, path, headers=headers)
                assert (path, method, answer.status_code) == (path, method, 401)
                assert answer.headers["www-authenticate"] == CHALLENGE
    assert toy.commands == []


@pytest.mark.parametrize("bad", BAD)
async def test_a_header_that_holds_no_login_is_401(app: FastAPI, bad: str | None) -> None:
    async with client_of(app, Authorization=bad) as stranger:
        answer = await stranger.get("/labs")
    assert answer.status_code == 401
    assert answer.json()["errors"][0]["code"] == "unauthorized"


@pytest.mark.parametrize(
    ("login", "password"),
    [
        (LOGIN, "wrong"),
        ("nobody", PASSWORD),
        (LOGIN, ""),
        ("", PASSWORD),
        ("", ""),
        ("\0", "\0"),
        (LOGIN, PASSWORD + " "),
    ],
)
async def test_a_wrong_login_is_401(app: FastAPI, login: str, password: str) -> None:
    async with client_of(app, Authorization=basic(login, password)) as stranger:
        answer = await stranger.get("/labs")
    assert answer.status_code == 401
    assert "wrong" in answer.json()["errors"][0]["detail"]


async def test_two_headers_are_none(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://api.example") as stranger:
        headers = [("Authorization", basic()), ("Authorization", basic())]
        assert (await stranger.get("/labs", headers=headers)).status_code == 401


async def test_public_paths_tell_a_status_and_nothing_else(app: FastAPI) -> None:
    async def there() -> bool:
        return True

    async def away() -> bool:
        raise ConnectionError("/run/redis.sock")

    async with client_of(app, Authorization=None) as stranger:
        for path in ("/healthz", "/healthz/", "/readyz", "/readyz/"):
            answer = await stranger.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        app.state.ready_checks = {"database": there, "broker": away}
        answer = await stranger.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
        assert (await stranger.get("/healthz")).status_code == 200
        assert (await stranger.post("/healthz")).status_code == 405


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("Basic " + base64.b64encode("ж:🔑:x".encode()).decode(), ("ж", "🔑:x")),
        ("bAsIc  " + base64.b64encode(b"a:").decode() + " ", ("a", "")),
        ("Basic " + base64.b64encode(b"a:" + b"x" * 510).decode(), ("a", "x" * 510)),
        ("Basic " + base64.b64encode(b"a:" + b"x" * 511).decode(), None),
        ("Basic " + base64.urlsafe_b64encode(b"\xfb\xff:").decode(), None),
        ("Basic é", None),
    ],
)
def test_basic_is_utf8_and_splits_once(header: str, pair: tuple[str, str] | None) -> None:
    assert parse_basic(header) == pair


async def test_a_login_typed_in_another_normal_form_is_the_same() -> None:
    stored = credentials.StoredLogin("йод", credentials._HASHER.hash("ёлка-ёлка-ёлка-ёлка"), 1)
    apart = [unicodedata.normalize("NFD", text) for text in ("йод", "ёлка-ёлка-ёлка-ёлка")]
    assert await credentials.verify(stored, CheckedLogins(), *apart)


async def test_nobody_gets_in_while_there_is_no_administrator() -> None:
    assert not await credentials.verify(None, CheckedLogins(), LOGIN, PASSWORD)
    assert not await credentials.verify(None, CheckedLogins(), "", "")


class CountingLogins(CheckedLogins):
    """Counts the hashes."""

    hashes = 0

    async def check(self, stored: StoredLogin | None, login: str, password: str) -> bool:
        self.hashes += 1
        return await super().check(stored, login, password)


async def test_equal_requests_hash_once_and_a_right_login_is_known_while_it_is_used(toy: Toy) -> None:
    now = [0.0]
    checked = CountingLogins(clock=lambda: now[0])
    app = make_app(toy, checked=checked)
    async with client_of(app) as client:
        answers = await asyncio.gather(*(client.get("/labs") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert checked.hashes == 1
        for now[0] in (59.9, 119.8):
            await client.get("/labs")
            assert checked.hashes == 1
        now[0] = 179.9
        await client.get("/labs")
        assert checked.hashes == 2


async def test_a_wrong_login_is_hashed_and_never_remembered() -> None:
    checked = CountingLogins()
    for login in (LOGIN, "nobody"):
        for _ in range(2):
            assert not await credentials.verify(STORED, checked, login, "wrong")
    assert checked.hashes == 4
    assert PASSWORD not in repr(checked)


async def test_bootstrap_makes_one_administrator_and_leaves_him_alone(sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        assert await credentials.bootstrap(session, LOGIN, Secret(PASSWORD))
    async with sessions.begin() as session:
        assert not await credentials.bootstrap(session, "other", Secret("another-password"))
        stored = await credentials.read(session)
    assert stored is not None
    assert (stored.login, stored.version) == (LOGIN, 1)
    assert PASSWORD not in stored.password_hash


async def test_a_changed_credential_is_dead_at_once_in_every_process(toy: Toy, sessions: SessionFactory) -> None:
    async with sessions.begin() as session:
        await credentials.bootstrap(session, LOGIN, Secret(PASSWORD))
    apps = [make_app(toy), make_app(toy)]
    for app in apps:
        app.state.session_factory = sessions
        async with client_of(app) as client:
            assert (await client.get("/labs")).status_code == 200
    async with sessions.begin() as session:
        await credentials.change(session, Secret(PASSWORD), "новый", Secret("новый-пароль-🔑🔑🔑"))
    for app in apps:
        async with client_of(app) as old, client_of(app, Authorization=basic("новый", "новый-пароль-🔑🔑🔑")) as new:
            assert (await old.get("/labs")).status_code == 401
            assert (await new.get("/labs")).status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda: (Secret("wrong"), "x", Secret("long-enough-password")), "current_password"),
        (lambda: (Secret(PASSWORD), "a:b", Secret("long-enough-password")), "login"),
        (lambda: (Secret(PASSWORD), " ", Secret("long-enough-password")), "login"),
        (lambda: (Secret(PASSWORD), "a\n", Secret("long-enough-password")), "login"),
        (lambda: (Secret(PASSWORD), "a", Secret("14-characters!")), "password"),
        (lambda: (Secret(PASSWORD), "a", Secret("long-enough\0password")), "password"),
        (lambda: (Secret(PASSWORD), "a", Secret("ж" * 300)), "password"),
        (lambda: (Secret(PASSWORD), "a", Secret("й" * 200)), "password"),
        (lambda: (Secret(PASSWORD), "\ufb2c" * 40, Secret("long-enough-password")), "login"),
        (lambda: (Secret(PASSWORD), "a", Secret("й" * 14)), "password"),
        (lambda: (Secret(PASSWORD), "the-same-as-the-login", Secret("the-same-as-the-login")), "password"),
        (lambda: (Secret(PASSWORD), "a", Secret(PASSWORD)), "password"),
    ],
)
async def test_a_credential_that_does_not_follow_the_rules_changes_nothing(
    sessions: SessionFactory, change: Callable[[], tuple[Secret, str, Secret]], field: str
) -> None:
    async with sessions.begin() as session:
        await credentials.bootstrap(session, LOGIN, Secret(PASSWORD))
    async with sessions() as session:
        with pytest.raises(FieldError) as caught:
            await credentials.change(session, *change())
        assert caught.value.field == field
    async with sessions() as session:
        stored = await credentials.read(session)
    assert stored is not None
    assert stored.version == 1


async def test_a_person_on_the_host_resets_the_login(sessions: SessionFactory) -> None:
    for version in (1, 2):
        async with sessions.begin() as session:
            await credentials.reset(session, LOGIN, Secret(PASSWORD + str(version)))
            stored = await credentials.read(session)
        assert stored is not None
        assert stored.version == version
        assert await credentials.verify(stored, CheckedLogins(), LOGIN, PASSWORD + str(version))
