"""Guessing is slow, and nobody is locked out by it: by address, in all, over several processes, without Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path

import httpx
import pytest

from alfa_cloud.api.app import create_app
from alfa_cloud.api.throttle import Bucket, Limits, Throttle, visitor_of
from alfa_cloud.services.credentials import CheckedLogins, StoredLogin
from tests.api.conftest import basic, client_of
from tests.api.resources import Described
from tests.api.toy import LOGIN, PASSWORD, STORED, FakeSession, Toy, options, router

GUESSER, ADMIN = "198.51.100.7", "203.0.113.9"
PROXY = "10.0.0.1"
FEW = Limits(Bucket(3, 10.0), Bucket(5, 1.0))


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingLogins(CheckedLogins):
    """Counts the hashes; none is computed, and only the right login is right."""

    hashes = 0

    async def check(self, stored: StoredLogin | None, login: str, password: str) -> bool:
        self.hashes += 1
        await asyncio.sleep(0)
        return (login, password) == (LOGIN, PASSWORD)


class Doors:
    """The toy application behind its throttle."""

    def __init__(self, limits: Limits | None = None, redis_url: str | None = None) -> None:
        self.clock = Clock()
        self.checked = CountingLogins(clock=self.clock)
        self.throttle = Throttle(limits, redis_url, clock=self.clock)
        proxies = (ip_network(f"{PROXY}/32"),)
        self.app = create_app(options(trusted_proxies=proxies), [router], checked=self.checked, throttle=self.throttle)
        self.app.state.toy = Toy()
        self.app.state.session_factory = lambda: FakeSession(STORED)

    async def ask(self, peer: str, password: str = PASSWORD, **headers: str) -> httpx.Response:
        """The answer to a login from somewhere."""
        async with client_of(self.app, peer=peer, Authorization=basic(LOGIN, password), **headers) as http:
            return await http.get("/labs")

    async def guess(self, peer: str, tries: int, name: str = "guess {}", **headers: str) -> Counter[int]:
        """How many wrong logins got which status."""
        answers = [await self.ask(peer, name.format(number), **headers) for number in range(tries)]
        return Counter(answer.status_code for answer in answers)


async def test_a_guesser_is_throttled_and_the_administrator_elsewhere_is_not() -> None:
    doors = Doors()
    assert await doors.guess(GUESSER, 300) == {401: 10, 429: 290}
    assert doors.checked.hashes == 10
    assert (await doors.ask(ADMIN)).status_code == 200
    assert (await doors.ask(GUESSER)).status_code == 429


async def test_many_guesses_at_once_are_throttled_just_the_same() -> None:
    doors = Doors()
    different = await asyncio.gather(*(doors.ask(GUESSER, f"guess {number}") for number in range(300)))
    assert Counter(answer.status_code for answer in different) == {401: 10, 429: 290}
    equal = await asyncio.gather(*(doors.ask("198.51.100.8", "guess") for _ in range(300)))
    assert Counter(answer.status_code for answer in equal) == {401: 11, 429: 289}
    assert doors.checked.hashes == 11


async def test_the_wait_that_is_told_is_the_wait() -> None:
    doors = Doors()
    await doors.guess(GUESSER, 11)
    answer = await doors.ask(GUESSER)
    error = answer.json()["errors"][0]
    wait_s = int(answer.headers["retry-after"])
    assert (answer.status_code, wait_s, error["code"]) == (429, 30, "too_many_logins")
    assert "www-authenticate" not in answer.headers
    doors.clock.now += wait_s - 1
    answer = await doors.ask(GUESSER)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    doors.clock.now += 1
    assert (await doors.ask(GUESSER)).status_code == 200
    assert await doors.guess(GUESSER, 12, "fresh {}") == {401: 10, 429: 2}


async def test_401_and_429_are_described_and_valid() -> None:
    doors = Doors(FEW)
    described = Described(doors.app.openapi())
    for status in (401, 401, 401, 429):
        answer = await doors.ask(GUESSER, f"guess {doors.checked.hashes}")
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/vnd.api+json"
        described.check(answer)


async def test_a_forged_address_dodges_nothing() -> None:
    doors = Doors()
    await doors.guess(GUESSER, 10)
    for number in range(20):
        answer = await doors.ask(GUESSER, f"more {number}", **{"X-Forwarded-For": f"192.0.2.{number}"})
        assert answer.status_code == 429
    through = {"X-Forwarded-For": f"192.0.2.1, {GUESSER}", "X-Forwarded-Proto": "https"}
    assert (await doors.ask(PROXY, "behind the proxy", **through)).status_code == 429
    assert (await doors.ask(PROXY, **{**through, "X-Forwarded-For": ADMIN})).status_code == 200


async def test_a_network_of_ipv6_is_one_guesser() -> None:
    assert visitor_of(ip_address("2001:db8:1:2:3::4")) == visitor_of(ip_address("2001:db8:1:2::ffff"))
    assert visitor_of(ip_address("2001:db8:1:3::4")) != visitor_of(ip_address("2001:db8:1:2::4"))
    assert visitor_of(ip_address(GUESSER)) == GUESSER


async def test_a_script_with_an_old_password_locks_nobody_out_of_its_own_address() -> None:
    doors = Doors()
    assert await doors.guess(ADMIN, 50, "the password of last year") == {401: 11, 429: 39}
    assert doors.checked.hashes == 1
    assert (await doors.ask(ADMIN)).status_code == 200
    doors.clock.now += 3600
    await doors.guess(ADMIN, 50, "the password of last year")
    assert (await doors.ask(ADMIN)).status_code == 200


async def test_who_works_is_not_disturbed_by_guesses_from_the_same_address() -> None:
    doors = Doors()
    assert (await doors.ask(ADMIN)).status_code == 200
    await doors.guess(ADMIN, 20)
    for _ in range(5):
        doors.clock.now += 50
        assert (await doors.ask(ADMIN)).status_code == 200
        await doors.guess(ADMIN, 20)
    doors.clock.now += 61
    await doors.guess(ADMIN, 20)
    assert (await doors.ask(ADMIN)).status_code == 429


async def test_twenty_first_requests_at_once_are_one_try() -> None:
    doors = Doors()
    for _ in range(2):
        answers = await asyncio.gather(*(doors.ask(ADMIN) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
    assert doors.checked.hashes == 1


async def test_guesses_from_everywhere_are_slow_and_known_places_get_in() -> None:
    doors = Doors(FEW)
    home = "203.0.113.77"
    assert (await doors.ask(home)).status_code == 200
    doors.clock.now += 3600
    statuses = [(await doors.ask(f"192.0.2.{number}", f"guess {number}")).status_code for number in range(20)]
    assert Counter(statuses) == {401: 5, 429: 15}
    assert (await doors.ask(ADMIN)).status_code == 429
    assert (await doors.ask(home)).status_code == 200
    # Found right a moment ago, so it needs no hash: only the address counts.
    assert (await doors.ask(ADMIN)).status_code == 200


async def test_processes_count_together(redis_url: str) -> None:
    limits = Limits(Bucket(3, 60.0), Bucket(5, 60.0))
    one, two = Doors(limits, redis_url), Doors(limits, redis_url)
    try:
        assert (await one.guess(GUESSER, 2))[401] == 2
        assert await two.guess(GUESSER, 3) == {401: 1, 429: 2}
        assert (await one.ask(GUESSER)).status_code == 429
        assert 1 <= int((await one.ask(GUESSER)).headers["retry-after"]) <= 60
        assert (await two.ask(ADMIN)).status_code == 200
        assert await one.guess("192.0.2.1", 3, "other {}") == {401: 1, 429: 2}
        assert (await one.ask(ADMIN)).status_code == 200
        assert await two.throttle.try_login(GUESSER) > 0
        await one.throttle.welcome(GUESSER)
        assert await one.throttle.try_login(GUESSER) == 0
    finally:
        await one.throttle.close()
        await two.throttle.close()


async def test_the_shared_wait_is_honest(redis_url: str) -> None:
    throttle = Throttle(Limits(Bucket(2, 0.2), Bucket(50, 0.01)), redis_url)
    try:
        assert [await throttle.try_login(GUESSER) for _ in range(2)] == [0, 0]
        wait_s = await throttle.try_login(GUESSER)
        assert 0 < wait_s <= 0.2
        async with asyncio.timeout(10):
            while throttle.told(GUESSER):
                await asyncio.sleep(0.01)
        assert await throttle.try_login(GUESSER) == 0
    finally:
        await throttle.close()


@pytest.mark.parametrize("where", ["unix://{folder}/nobody.sock", "redis://127.0.0.1:1/0"])
async def test_logins_work_while_redis_is_away(tmp_path: Path, where: str) -> None:
    doors = Doors(FEW, where.format(folder=tmp_path))
    try:
        assert (await doors.ask(ADMIN)).status_code == 200
        assert await doors.guess(GUESSER, 10) == {401: 3, 429: 7}
    finally:
        await doors.throttle.close()
