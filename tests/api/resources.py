"""The real application over real stores, for tests of its resources; every answer is held against its own document."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import httpx
import jsonschema
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from alfa_cloud.api.server import make_app
from alfa_cloud.config import Settings
from alfa_cloud.db import SessionFactory, make_session_factory
from alfa_cloud.remote.keys import generate_key
from alfa_cloud.sandbox.practice import PracticeServer
from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis
from alfa_cloud.services import credentials, identity
from alfa_cloud.specs import Secret
from alfa_cloud.vault import Vault

LOGIN, PASSWORD = "админ", "пароль-администратора-1"
URL = "http://127.0.0.1:8000"
JSONAPI = "application/vnd.api+json"
DATABASES = count(1)


class Described:
    """The OpenAPI document, as something to hold answers against."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.components = document["components"]
        self.operations = [
            (method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", _plain(path))), described["responses"])
            for path, methods in document["paths"].items()
            for method, described in methods.items()
        ]

    def check(self, answer: httpx.Response) -> None:
        """The answer is one that the document tells of; an assertion fails where it is not."""
        path = _plain(answer.request.url.path)
        for method, pattern, responses in self.operations:
            if method == answer.request.method and pattern.fullmatch(path):
                self._check(answer, responses)
                return
        assert answer.status_code in (404, 405), f"{answer.request.method} {path} is not described"

    def _check(self, answer: httpx.Response, responses: dict[str, Any]) -> None:
        assert str(answer.status_code) in responses, f"{answer.status_code} is not described: {answer.text}"
        found = responses[str(answer.status_code)]
        if "$ref" in found:
            found = self.components["responses"][found["$ref"].rpartition("/")[2]]
        if answer.status_code == 204:
            assert not answer.content
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        schema = found["content"][media_type]["schema"]
        if media_type == JSONAPI:
            jsonschema.Draft202012Validator({**schema, "components": self.components}).validate(answer.json())


def _plain(path: str) -> str:
    return re.sub(r"^/server(?=/|$)", "/servers", path).rstrip("/") or "/"


class Api:
    """A script that uses the application with the right login."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient, sessions: SessionFactory, vault: Vault) -> None:
        self.app = app
        self.http = http
        self.sessions = sessions
        self.vault = vault
        self.described = Described(app.openapi())

    async def ask(self, method: str, path: str, status: int, **options: Any) -> httpx.Response:
        """The answer; an assertion fails where its status or its form is another than expected."""
        answer = await self.http.request(method, path, **options)
        assert answer.status_code == status, answer.text
        self.described.check(answer)
        return answer

    async def get(self, path: str, **options: Any) -> Any:
        """The document at this address."""
        return (await self.ask("GET", path, 200, **options)).json()

    async def post(self, path: str, body: Any = None, status: int = 201, **options: Any) -> Any:
        """The document that a POST of flat JSON answers."""
        return (await self.ask("POST", path, status, json=body, **options)).json()

    async def refused(self, method: str, path: str, status: int, **options: Any) -> list[tuple[str, Any]]:
        """The code and the place of each error."""
        answer = await self.ask(method, path, status, **options)
        errors = answer.json()["errors"]
        assert all(error["status"] == str(status) and error["detail"] and error["title"] for error in errors)
        return [(error["code"], next(iter(error.get("source", {"": None}).values()))) for error in errors]


def as_document(type_: str, flat: dict[str, Any]) -> dict[str, Any]:
    """A flat body as a JSON:API document, as the options of a request."""
    data: dict[str, Any] = {"type": type_, "attributes": {k: v for k, v in flat.items() if k not in ("id", "server_id")}}
    if "id" in flat:
        data["id"] = str(flat["id"])
    if "server_id" in flat:
        linkage = {"type": "servers", "id": str(flat["server_id"])}
        data["relationships"] = {"server": {"data": linkage}}
    return {"json": {"data": data}, "headers": {"Content-Type": JSONAPI}}


def operation_of(document: Any) -> str:
    """The id of the operation that a resource names."""
    return str(document["data"]["relationships"]["operation"]["data"]["id"])


@pytest.fixture(scope="module")
async def api(
    postgres: EmbeddedPostgres, redis_store: EmbeddedRedis, template: str, secret_key: str, vault: Vault
) -> AsyncIterator[Api]:
    """The application on a database of this module's own, without a worker: operations stay queued."""
    name = f"resources_{next(DATABASES)}"
    postgres.create_database(name, template=template)
    redis_store.flush()
    engine = create_async_engine(postgres.url_for(name), poolclass=NullPool)
    sessions = make_session_factory(engine)
    async with sessions.begin() as session:
        await identity.bootstrap(session, vault, *generate_key())
        await credentials.bootstrap(session, LOGIN, Secret(PASSWORD))
    values: dict[str, Any] = {"secret_key": (secret_key,), "allowed_origins": ("https://mol.test",)}
    values |= {"allowed_networks": ("127.0.0.0/8",), "server_networks": ("127.0.0.0/8",), "connect_timeout_s": 2}
    app = make_app(Settings(database_url=postgres.url_for(name), redis_url=redis_store.url, **values))
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 40000))
    auth = httpx.BasicAuth(LOGIN.encode(), PASSWORD.encode())
    async with LifespanManager(app), httpx.AsyncClient(transport=transport, base_url=URL, auth=auth) as http:
        yield Api(app, http, sessions, vault)
    await engine.dispose()
    postgres.drop_database(name)


@pytest.fixture(scope="module")
async def door(api: Api, practice: PracticeServer) -> dict[str, Any]:
    """The practice server, which the application may log in to, as attributes to register it by."""
    practice.authorize((await api.http.get("/ssh_public_key", headers={"Accept": "text/plain"})).text)
    return {
        "name": "practice",
        "host": practice.host,
        "port": practice.port,
        "username": practice.username,
        "database_engine": "postgresql",
        "base_domain": "practice.test",
        "tls": "none",
    }


@pytest.fixture(scope="module")
async def server_id(api: Api, door: dict[str, Any]) -> int:
    """The registered practice server."""
    return int((await api.post("/servers/", door))["data"]["id"])
