"""The administrator's login: changed in one step, by its rules, and in every process at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from alfa_cloud.db import SessionFactory
from alfa_cloud.sandbox.stores import EmbeddedRedis
from alfa_cloud.services import credentials
from alfa_cloud.specs import Secret
from tests.api.resources import Api, as_document
from tests.processes import Process
from tests.system import LOGIN, PASSWORD, System, free_port

pytest_plugins = ["tests.fixtures.api"]

PATH = "/cloud_admin_password"
NEW_LOGIN, NEW = "новый администратор", "новый:пароль-🔑-новый"
GOOD = {"current_password": PASSWORD, "login": NEW_LOGIN, "password": NEW}
LONGEST = "x" * (511 - len("admin"))


@pytest.fixture(autouse=True)
async def unchanged(request: pytest.FixtureRequest) -> None:
    """Each test on the shared application begins with the first login, and without failures."""
    if "api" in request.fixturenames:
        api: Api = request.getfixturevalue("api")
        async with api.sessions.begin() as session:
            await credentials.reset(session, LOGIN, Secret(PASSWORD))
        await api.app.state.throttle.welcome("127.0.0.1")


def auth(login: str, password: str) -> httpx.BasicAuth:
    """The login as a script sends it."""
    return httpx.BasicAuth(login.encode(), password.encode())


@pytest.mark.parametrize("form", ["flat", "document"])
async def test_the_new_login_works_and_the_old_one_is_dead(api: Api, form: str) -> None:
    options = {"json": GOOD} if form == "flat" else as_document("commands", GOOD)
    await api.ask("POST", PATH, 204, **options)
    assert await api.refused("GET", "/servers", 401) == [("unauthorized", "Authorization")]
    await api.ask("GET", "/servers", 200, auth=auth(NEW_LOGIN, NEW))
    await api.ask("GET", "/servers", 401, auth=auth(NEW_LOGIN, PASSWORD))
    await api.ask("GET", "/servers", 401, auth=auth(LOGIN, NEW))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"login": ""}, "login"),
        ({"login": " "}, "login"),
        ({"login": "ad:min"}, "login"),
        ({"login": "ad\nmin"}, "login"),
        ({"login": "x" * 101}, "login"),
        ({"login": None}, "login"),
        ({"password": "14-characters!"}, "password"),
        ({"password": "a\u0001-control-character"}, "password"),
        ({"password": "a\u0085-control-character"}, "password"),
        ({"login": "admin", "password": LONGEST + "x"}, "password"),
        ({"password": "x" * 2000}, "password"),
        ({"password": PASSWORD}, "password"),
        ({"login": "fifteen-or-longer", "password": "fifteen-or-longer"}, "password"),
        ({"password": 123456789012345}, "password"),
        ({"current_password": "not the current one"}, "current_password"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_changes(api: Api, change: dict[str, Any], name: str) -> None:
    body = {**GOOD, **change}
    errors = await api.refused("POST", PATH, 422, json=body)
    assert [place for _, place in errors] == [f"/{name}"]
    errors = await api.refused("POST", PATH, 422, **as_document("commands", body))
    assert [place for _, place in errors] == [f"/data/attributes/{name}"]
    await api.ask("GET", "/servers", 200)
    async with api.sessions() as session:
        stored = await credentials.read(session)
    assert stored is not None
    assert stored.login == LOGIN


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("admin", LONGEST),
        ("x" * 100, "пароль с пробелами и :"),
        ("й" * 100, "й" * 15),
        ("<&>\"'", "👨‍👩‍👧‍👦" * 3),
        ("%41+/=", "\u00a0\u2028" * 8),
    ],
)
async def test_whatever_is_taken_can_be_used(api: Api, login: str, password: str) -> None:
    await api.ask("POST", PATH, 204, json={**GOOD, "login": login, "password": password})
    await api.ask("GET", "/servers", 200, auth=auth(login, password))


async def test_a_wrong_current_password_counts_as_a_failed_login(api: Api) -> None:
    for number in range(10):
        errors = await api.refused("POST", PATH, 422, json={**GOOD, "current_password": f"guess {number}"})
        assert errors == [("wrong_password", "/current_password")]
    answer = await api.ask("POST", PATH, 429, json=GOOD)
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    await api.ask("GET", "/servers", 200)
    await api.app.state.throttle.welcome("127.0.0.1")
    await api.ask("POST", PATH, 204, json=GOOD)


async def test_it_is_a_post_and_guarded_like_every_command(api: Api) -> None:
    assert (await api.http.get(PATH)).status_code == 405
    assert (await api.http.request("HEAD", PATH)).status_code == 405
    assert (await api.http.post(PATH, json=GOOD, auth=auth(LOGIN, "wrong"))).status_code == 401
    for headers in ({"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}):
        answer = await api.http.post(PATH, json=GOOD, headers=headers)
        assert answer.status_code == 403
    answer = await api.http.post(PATH, data=GOOD)
    assert answer.status_code == 415
    await api.ask("GET", "/servers", 200)


async def test_nothing_can_be_guessed_from_what_is_kept_of_the_body(api: Api) -> None:
    sent = json.dumps(GOOD).encode()
    headers = {"Idempotency-Key": "the-change", "Content-Type": "application/json"}
    await api.ask("POST", PATH, 204, content=sent, headers=headers)
    async with api.sessions() as session:
        kept = (await session.execute(text("SELECT t.body_sha256, t::text FROM idempotency_keys t"))).one()
        assert kept[0] == api.vault.digest(b"application/json\0" + sent)
        assert NEW not in kept[1]
        row = str((await session.execute(text("SELECT t::text FROM credentials t"))).scalar_one())
    assert "argon2id" in row
    assert NEW not in row


async def test_of_two_changes_at_once_one_wins(api: Api) -> None:
    bodies = [{**GOOD, "login": f"admin-{number}"} for number in range(2)]
    answers = await asyncio.gather(*(api.http.post(PATH, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [204, 422]
    winner = next(number for number, answer in enumerate(answers) if answer.status_code == 204)
    await api.ask("GET", "/servers", 200, auth=auth(f"admin-{winner}", NEW))


# Several processes


@dataclass
class Rotation:
    """One administrator who changes the login again and again, and many who use the old and the new one.

    Args:
        asked: how many changes were begun; `done`: how many were answered.
    """

    urls: list[str]
    http: httpx.AsyncClient
    asked: int = 0
    done: int = 0
    requests: int = 0
    wrong: list[str] = field(default_factory=list)
    tick: asyncio.Event = field(default_factory=asyncio.Event)

    def login(self, number: int) -> httpx.BasicAuth:
        return auth(LOGIN, PASSWORD) if number == 0 else auth(f"админ-{number}", f"пароль-номер-{number:04}")

    async def rotate(self, times: int, between: int) -> None:
        """Each change comes after some requests have been answered."""
        for number in range(1, times + 1):
            current = PASSWORD if number == 1 else f"пароль-номер-{number - 1:04}"
            body = {"current_password": current, "login": f"админ-{number}", "password": f"пароль-номер-{number:04}"}
            self.asked = number
            url = self.urls[number % len(self.urls)]
            answer = await self.http.post(url + PATH, json=body, auth=self.login(number - 1))
            assert answer.status_code == 204, answer.text
            self.done = number
            target = self.requests + between
            while self.requests < target:
                self.tick.clear()
                await self.tick.wait()

    async def use(self, seat: int) -> None:
        """Ask with the newest login, or with the one before, in turn and in every process."""
        turn = seat
        while True:
            turn += 1
            done = self.done
            number = done if turn % 3 else max(0, done - 1)
            url = self.urls[turn % len(self.urls)]
            answer = await self.http.get(url + "/nowhere", auth=self.login(number))
            self.requests += 1
            self.tick.set()
            if number < done and answer.status_code not in (401, 429):
                self.wrong.append(f"login {number} after change {done}: {answer.status_code}")
            if number == self.asked and answer.status_code != 404:
                self.wrong.append(f"login {number}, the newest: {answer.status_code} {answer.text}")


@pytest.fixture
async def system(
    tmp_path: Path, database_url: str, redis_store: EmbeddedRedis, secret_key: str
) -> AsyncIterator[System]:
    """The service with one API process."""
    redis_store.flush()
    stores = {"database_url": database_url, "redis_url": redis_store.url, "secret_key": secret_key}
    async with System(tmp_path, **stores, settings={}) as made:
        yield made


@dataclass(frozen=True)
class Peer:
    """One more API process."""

    url: str
    process: Process

    async def kill(self, request: asyncio.Task[httpx.Response]) -> None:
        """It died by `kill -9`, whatever it was doing for a request."""
        self.process.kill()
        self.process.wait()
        await asyncio.gather(request, return_exceptions=True)


async def more_apis(system: System, count: int) -> list[Peer]:
    """Further API processes, once they answer."""
    ports = [free_port() for _ in range(count)]
    started = [Peer(f"http://127.0.0.1:{port}", system.start("api", "--port", str(port))) for port in ports]
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as http:
        for one in started:
            while not await answers(http, one.url):
                await asyncio.sleep(0.05)
    return started


async def answers(http: httpx.AsyncClient, url: str) -> bool:
    """Whether a process listens."""
    try:
        return (await http.get(url + "/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_no_request_falls_between_the_old_and_the_new_login(system: System) -> None:
    urls = [system.url, *(one.url for one in await more_apis(system, 1))]
    async with httpx.AsyncClient(timeout=30, trust_env=False, limits=httpx.Limits(max_connections=30)) as http:
        rotation = Rotation(urls, http)
        users = [asyncio.create_task(rotation.use(seat)) for seat in range(20)]
        await rotation.rotate(4, between=20)
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)
    assert rotation.wrong == []
    assert rotation.requests >= 80
    logs = system.logs()
    assert logs.count('"admin_login_changed"') == 4
    assert '"login_refused"' in logs
    assert not any(secret in logs for secret in ("пароль-номер", PASSWORD, "Basic "))


async def test_a_process_killed_within_the_change_leaves_one_login(system: System, sessions: SessionFactory) -> None:
    held, timed = await more_apis(system, 2)
    first, second, third = (LOGIN, PASSWORD), ("admin-2", "password-number-2"), ("admin-3", "password-number-3")
    async with sessions() as session:
        await session.execute(text("SELECT 1 FROM credentials FOR UPDATE"))
        change = begin_change(held.url, first, second)
        async with asyncio.timeout(30), sessions() as watching:
            while not await watching.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                await asyncio.sleep(0.01)
        await held.kill(change)
    assert [await status(system, login) for login in (first, second)] == [200, 401]
    change = begin_change(timed.url, first, third)
    # Wherever this machine is by then: before the hashing, within it, or after it.
    await asyncio.wait({change}, timeout=0.2)
    await timed.kill(change)
    assert sorted([await status(system, login) for login in (first, third)]) == [200, 401]


def begin_change(url: str, current: tuple[str, str], new: tuple[str, str]) -> asyncio.Task[httpx.Response]:
    """A change that is under way at one process."""
    body = {"current_password": current[1], "login": new[0], "password": new[1]}

    async def change() -> httpx.Response:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            return await http.post(url + PATH, json=body, auth=auth(*current))

    return asyncio.create_task(change())


async def status(system: System, login: tuple[str, str]) -> int:
    """What the first process answers to a login."""
    return (await system.http.get("/servers", auth=auth(*login))).status_code
