"""Which requests may run: the table of the contract, cell by cell."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import product
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers

from alfa_cloud.api.origin import ALLOW_HEADERS, EXPOSE_HEADERS, Origins, judge, origin_of
from tests.api.conftest import CHECKED, client_of
from tests.api.toy import MOL, Toy, make_app, options

SITES = (None, "none", "same-origin", "same-site", "cross-site")
MODES = (None, "cors", "no-cors", "navigate", "websocket", "same-origin")
DESTS = ("image", "script", "iframe", "document", "empty")
ORIGINS = (None, MOL, "https://evil.example", "null", "https://mol.example.evil.com", "https://mol.example:444")
PURPOSES = (None, ("Sec-Purpose", "prefetch;prerender"), ("Purpose", "prefetch"), ("X-Moz", "prefetch"))
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
COMMAND, READ = "/servers/1/deploy", "/labs"


def expected(site: str | None, mode: str | None, origin: str | None, prefetch: bool, command: bool) -> bool:
    """The table, from its top to its bottom."""
    if prefetch:
        return False
    if site is None and mode is None:
        return origin in (None, MOL)
    if site == "same-origin" and mode in ("cors", "same-origin"):
        return True
    if origin == MOL and mode == "cors":
        return True
    return site == "none" and mode == "navigate" and not command


def request_headers(*cell: Any) -> dict[str, str]:
    """What a browser in this cell sends; without site and mode it is an old one, which has no destination either."""
    site, mode, dest, origin, purpose = cell
    named = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Origin": origin}
    if site is not None or mode is not None:
        named["Sec-Fetch-Dest"] = dest
    if purpose is not None:
        named[purpose[0]] = purpose[1]
    return {name: value for name, value in named.items() if value is not None}


async def test_every_cell_of_the_table(client: httpx.AsyncClient, toy: Toy) -> None:
    wrong = []
    for number, cell in enumerate(product(SITES, MODES, ORIGINS, PURPOSES, METHODS, (COMMAND, READ))):
        site, mode, origin, purpose, method, path = cell
        if path == READ and method == "POST":
            continue
        headers = request_headers(site, mode, DESTS[number % len(DESTS)], origin, purpose)
        before = len(toy.commands)
        answer = await client.request(method, path, headers=headers)
        may = expected(site, mode, origin, purpose is not None, path == COMMAND and method != "OPTIONS")
        ran = len(toy.commands) > before
        if (answer.status_code != 403) != may or ran != (may and path == COMMAND and method in ("GET", "POST")):
            wrong.append((cell, answer.status_code))
    assert wrong == []


@pytest.mark.parametrize(
    ("headers", "read", "command"),
    [
        ({}, True, True),
        ({"Referer": "https://evil.example/page"}, False, False),
        ({"Referer": MOL + "/page"}, True, True),
        ({"Referer": "about:blank"}, False, False),
        ({"Referer": ""}, False, False),
        ({"Origin": ""}, False, False),
        ({"Sec-Fetch-Dest": "image"}, False, False),
        ({"Sec-Fetch-User": "?1", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}, True, False),
        ({"Origin": MOL, "Referer": "https://evil.example/"}, True, True),
        ({"Origin": MOL.upper()}, False, False),
        ({"Origin": MOL + "/"}, False, False),
    ],
)
def test_cells_beside_the_matrix(headers: dict[str, str], read: bool, command: bool) -> None:
    origins = Origins.of(options())
    assert (judge(Headers(headers), command=False, origins=origins) is None) is read
    assert (judge(Headers(headers), command=True, origins=origins) is None) is command


def test_every_origin_must_be_said_and_is_never_null() -> None:
    origins = Origins.of(options(allowed_origins=("*",)))
    assert origins.has("https://any.example")
    assert not origins.has("null")


@pytest.mark.parametrize(
    ("origin", "friend"),
    [
        ("http://localhost:5173", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("http://mol.localhost", True),
        ("http://localhost.evil.com", False),
        ("http://127.0.0.1.evil.com", False),
        ("http://user@localhost:1", False),
        ("file://localhost", False),
        ("http://localhost:99999999", False),
    ],
)
def test_localhost_is_a_friend_in_the_sandbox_only(origin: str, friend: bool) -> None:
    assert Origins.of(options(loopback_origins=True)).has(origin) is friend
    assert not Origins.of(options()).has(origin)


def test_origins_are_written_as_browsers_write_them() -> None:
    assert origin_of("HTTPS://Mol.Example:443/x?y") == "https://mol.example"
    assert origin_of("http://[::1]:8000/") == "http://[::1]:8000"
    assert origin_of("javascript:alert(1)") == origin_of("https://[bad") == origin_of("http://a:b") == ""


async def test_a_preflight_is_answered_without_login_and_executes_nothing(app: FastAPI, toy: Toy) -> None:
    asked = {"Origin": MOL, "Access-Control-Request-Method": "POST", "Sec-Fetch-Mode": "cors"}
    async with client_of(app, Authorization=None) as stranger:
        answer = await stranger.options(COMMAND, headers={**asked, "Sec-Fetch-Site": "cross-site"})
        foreign = await stranger.options(COMMAND, headers={**asked, "Origin": "https://evil.example"})
        plain = await stranger.options(COMMAND)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == MOL
    assert answer.headers["access-control-allow-headers"] == ALLOW_HEADERS
    assert set(answer.headers["access-control-allow-methods"].split(", ")) >= {"GET", "POST", "PATCH", "DELETE"}
    assert "access-control-allow-credentials" not in answer.headers
    assert foreign.status_code == 403
    assert "access-control-allow-origin" not in foreign.headers
    assert plain.status_code == 401
    assert toy.commands == []


async def test_a_friend_may_read_answers_and_errors(client: httpx.AsyncClient) -> None:
    for path, status in (("/labs", 200), ("/nope", 404), ("/fail", 500)):
        answer = await client.get(path, headers={"Origin": MOL, "Sec-Fetch-Mode": "cors"})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == MOL
        assert answer.headers["access-control-expose-headers"] == EXPOSE_HEADERS
        assert answer.headers["vary"] == "Accept, Origin, Sec-Fetch-Site"


@pytest.mark.parametrize(
    ("peer", "base_url", "headers", "status"),
    [
        ("203.0.113.9", "http://api.example", {}, 403),
        ("203.0.113.9", "https://api.example", {}, 200),
        ("127.0.0.1", "http://127.0.0.1:8000", {}, 200),
        ("::1", "http://[::1]:8000", {}, 200),
        ("::ffff:127.0.0.1", "http://127.0.0.1:8000", {}, 200),
        ("203.0.113.9", "http://api.example", {"X-Forwarded-Proto": "https"}, 403),
        ("203.0.113.9", "http://api.example", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("10.0.0.1", "http://api.example", {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}, 200),
        ("10.0.0.1", "http://api.example", {"X-Forwarded-Proto": "http", "X-Forwarded-For": "203.0.113.9"}, 403),
        (
            "10.0.0.1",
            "http://api.example",
            {"X-Forwarded-Proto": "https, http", "X-Forwarded-For": "127.0.0.1, 8.8.8.8"},
            403,
        ),
    ],
)
async def test_https_only_but_for_loopback(
    toy: Toy, peer: str, base_url: str, headers: dict[str, str], status: int
) -> None:
    app = make_app(toy, checked=CHECKED, trusted_proxies=(ip_network("10.0.0.0/24"),))
    async with client_of(app, base_url=base_url, peer=peer) as client:
        answer = await client.get("/labs", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["errors"][0]["code"] == "https_required"
    assert ("strict-transport-security" in answer.headers) is (
        base_url.startswith("https") or (peer == "10.0.0.1" and status == 200)
    )


@pytest.mark.parametrize(
    ("peer", "forwarded", "address", "inside"),
    [
        ("198.51.100.7", None, "198.51.100.7", True),
        ("203.0.113.9", None, "203.0.113.9", False),
        ("203.0.113.9", "198.51.100.7", "203.0.113.9", False),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7", True),
        ("10.0.0.1", "198.51.100.7, 203.0.113.9", "203.0.113.9", False),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7, 10.0.0.2", "198.51.100.7", True),
        ("10.0.0.1", "198.51.100.7, garbage", "10.0.0.1", False),
    ],
)
async def test_the_network_door_sees_through_trusted_proxies_only(
    toy: Toy, peer: str, forwarded: str | None, address: str, inside: bool
) -> None:
    changes = {
        "allowed_networks": (ip_network("198.51.100.0/24"),),
        "trusted_proxies": (ip_network("10.0.0.0/24"),),
    }
    app = make_app(toy, checked=CHECKED, **changes)
    headers = {"X-Forwarded-Proto": "https"} | ({"X-Forwarded-For": forwarded} if forwarded else {})
    async with client_of(app, peer=peer) as client:
        answer = await client.get("/whoami", headers=headers)
        health = await client.get("/healthz", headers=headers)
    assert (answer.status_code, health.status_code) == ((200, 200) if inside else (403, 403))
    if inside:
        assert answer.json()["meta"]["address"] == address
    else:
        assert answer.json()["errors"][0]["code"] == "network_refused"
