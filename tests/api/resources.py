"""A script that uses the real application, and holds every answer against its OpenAPI document."""

from __future__ import annotations

import re
from typing import Any

import httpx
import jsonschema
from fastapi import FastAPI

from alfa_cloud.db import SessionFactory
from alfa_cloud.vault import Vault

JSONAPI = "application/vnd.api+json"


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
    data: dict[str, Any] = {
        "type": type_,
        "attributes": {k: v for k, v in flat.items() if k not in ("id", "server_id")},
    }
    if "id" in flat:
        data["id"] = str(flat["id"])
    if "server_id" in flat:
        linkage = {"type": "servers", "id": str(flat["server_id"])}
        data["relationships"] = {"server": {"data": linkage}}
    return {"json": {"data": data}, "headers": {"Content-Type": JSONAPI}}


def operation_of(document: Any) -> str:
    """The id of the operation that a resource names."""
    return str(document["data"]["relationships"]["operation"]["data"]["id"])
