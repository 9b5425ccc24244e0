"""The toy application, and clients that speak to it without a network."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from alfa_cloud.db import SessionFactory
from alfa_cloud.services import credentials
from alfa_cloud.services.credentials import CheckedLogins
from alfa_cloud.specs import Secret
from tests.api.toy import API, LOGIN, PASSWORD, Toy, make_app

CHECKED = CheckedLogins()
"""Shared, so that the suite hashes the right login once a minute."""


def basic(login: str = LOGIN, password: str = PASSWORD) -> str:
    """An Authorization header in UTF-8."""
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def client_of(app: FastAPI, *, base_url: str = API, peer: str = "203.0.113.9", **headers: Any) -> httpx.AsyncClient:
    """A client with the right login, unless `headers` bring another Authorization."""
    transport = httpx.ASGITransport(app=app, client=(peer, 40000))
    given = {"Authorization": basic(), **headers}
    given = {name: value for name, value in given.items() if value is not None}
    return httpx.AsyncClient(transport=transport, base_url=base_url, headers=given)


def scope_of(path: str, query: bytes = b"", **headers: str) -> dict[str, Any]:
    """The scope of a GET with the right login."""
    given = {"authorization": basic(), **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("203.0.113.9", 1),
        "server": ("api.example", 443),
        "root_path": "",
    }


@pytest.fixture
def toy() -> Toy:
    """What the toy application holds."""
    return Toy()


@pytest.fixture
def app(toy: Toy) -> FastAPI:
    """The toy without a database."""
    return make_app(toy, checked=CHECKED)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A script with the right login."""
    async with client_of(app) as made:
        yield made


@pytest.fixture
async def stored_app(toy: Toy, sessions: SessionFactory) -> FastAPI:
    """The toy over a real database with its administrator."""
    async with sessions.begin() as session:
        await credentials.bootstrap(session, LOGIN, Secret(PASSWORD))
    app = make_app(toy)
    app.state.session_factory = sessions
    return app
