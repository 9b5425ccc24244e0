"""What the sandbox does over its own API once that answers, and what it tells the person at the terminal."""

from __future__ import annotations

import asyncio
import base64
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Final, Self

import httpx

from alfa_cloud.sandbox.practice import PracticeServer

READY_S: Final = 120.0
PREPARED_S: Final = 120.0
SERVER_NAME: Final = "practice"
BASE_DOMAIN: Final = "practice.localhost"
JSON_API: Final = "application/vnd.api+json"


@dataclass(frozen=True, slots=True)
class Door:
    """The API and the login for it."""

    url: str
    login: str
    password: str

    @property
    def authorization(self) -> str:
        """The header's value, in UTF-8."""
        return "Basic " + base64.b64encode(f"{self.login}:{self.password}".encode()).decode()


class FirstSteps:
    """A client of the API."""

    def __init__(self, door: Door) -> None:
        headers = {"Authorization": door.authorization, "Accept": JSON_API}
        self.http = httpx.AsyncClient(base_url=door.url, headers=headers, timeout=60, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def prepare(self, practice: PracticeServer, say: Callable[[str], None]) -> str:
        """The practice server is registered and prepared; what went wrong, or an empty text."""
        if not await self._ready():
            return f"The API is not ready after {READY_S:g} s; its log tells why."
        try:
            key = await self.http.get("/ssh_public_key", headers={"Accept": "text/plain"})
            if key.status_code == httpx.codes.UNAUTHORIZED:
                return "The API does not take this login; it was changed, and only you know the new one."
            practice.authorize(key.raise_for_status().text)
            servers = (await self.http.get("/servers")).raise_for_status()
            if servers.json()["data"]:
                return ""
            say("Registering the practice server ...")
            return await self._register(practice)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            return f"The practice server could not be registered: {error!r}"

    async def practice_id(self, practice: PracticeServer) -> str | None:
        """The id of the practice server; None where it is not registered, or cannot be asked for."""
        answer = await self.http.get("/servers")
        for item in answer.json()["data"] if answer.is_success else ():
            attributes = item["attributes"]
            if (attributes["host"], attributes["port"]) == (practice.host, practice.port):
                return str(item["id"])
        return None

    async def _ready(self) -> bool:
        end = monotonic() + READY_S
        while monotonic() < end:
            try:
                if (await self.http.get("/readyz", timeout=5)).status_code == httpx.codes.OK:
                    return True
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
        return False

    async def _register(self, practice: PracticeServer) -> str:
        """Register the practice server, and wait for its preparation; what went wrong, or an empty text."""
        server = {
            "name": SERVER_NAME,
            "host": practice.host,
            "port": practice.port,
            "username": practice.username,
            "role": "production",
            "database_engine": "postgresql",
            "base_domain": BASE_DOMAIN,
            "tls": "none",
        }
        answer = await self.http.post("/servers/", json=server)
        if answer.status_code != httpx.codes.CREATED:
            return f"The practice server was not taken ({answer.status_code}): {answer.text}"
        operation = answer.json()["data"]["relationships"]["operation"]["data"]
        return await self._await_operation(operation["id"]) if operation else ""

    async def _await_operation(self, operation_id: str) -> str:
        """What went wrong with an operation, or an empty text."""
        end = monotonic() + PREPARED_S
        while monotonic() < end:
            answer = await self.http.get(f"/operations/{operation_id}")
            answer.raise_for_status()
            attributes = answer.json()["data"]["attributes"]
            if attributes["completed"] == "ok":
                return ""
            if attributes["completed"] is not None:
                return f"The practice server could not be prepared: {(attributes['error'] or {}).get('message')}"
            await asyncio.sleep(0.1)
        return f"The practice server is not prepared after {PREPARED_S:g} s; operation {operation_id} tells why."


def instructions(door: Door, mailbox_url: str, practice: PracticeServer, server_id: str | None) -> str:
    """What the person at the terminal needs."""
    lines = [
        "",
        f"Swagger UI   {door.url}/docs",
        f"Login        {door.login}",
        f"Password     {door.password}",
        f"Letters      {mailbox_url}",
        f"Practice     SSH {practice.username}@{practice.host}:{practice.port}, nginx on port {practice.http_port}",
        f"             (stand-ins for Docker, nginx, certbot and sudo in {practice.folder.root})",
    ]
    if server_id is not None:
        lines += [
            "",
            "A new client, its log to the end, the client itself, and its own page:",
            "",
            *tour(door, practice, server_id),
        ]
    return "\n".join([*lines, "", "Ctrl-C stops everything."])


def tour(door: Door, practice: PracticeServer, server_id: str) -> list[str]:
    """Lines for a shell that create a client and show it."""
    curl = f"curl -sS -u {shlex.quote(f'{door.login}:{door.password}')}"
    body = f'{{\\"name\\": \\"$NAME\\", \\"email\\": \\"lab@example.org\\", \\"server_id\\": {server_id}}}'
    pick = shlex.quote('import json, sys; print(json.load(sys.stdin)["data"]["id"])')
    python = shlex.quote(sys.executable)
    create = f"{curl} -H 'Content-Type: application/json' -d \"{body}\" {door.url}/clients/"
    page = f'curl -sS -H "Host: $NAME.{BASE_DOMAIN}" http://{practice.host}:{practice.http_port}/'
    return [
        f'NAME=lab-$(date +%H%M%S); ID=$({create} | {python} -c {pick}); echo "client $ID"',
        f"{curl} -N -H 'Accept: text/plain' \"{door.url}/clients/$ID/create_log?follow_log=true\"",
        f"{curl} {door.url}/clients/$ID; echo; {page}",
    ]
