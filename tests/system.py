"""The whole service as processes: an API, any number of workers, and a client for them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.processes import Process

LOGIN, PASSWORD = "админ", "пароль-администратора-1"
START_S = 30.0
PORTS = range(10_100, 12_000)
"""Below those that Linux gives to connections (`ip_local_port_range`), and practice servers take."""


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now, and that no connection is given as its own end."""
    chance = random.SystemRandom()
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", chance.choice(PORTS)))
            return int(probe.getsockname()[1])


class System:
    """API and workers on given stores; everything it started ends with it."""

    def __init__(
        self, folder: Path, *, database_url: str, redis_url: str, secret_key: str, settings: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ALFA_")},
            "ALFA_DATABASE_URL": database_url,
            "ALFA_REDIS_URL": redis_url,
            "ALFA_SECRET_KEY": secret_key,
            "ALFA_ADMIN_LOGIN": LOGIN,
            "ALFA_ADMIN_PASSWORD": PASSWORD,
            "ALFA_ALLOWED_ORIGINS": "https://mol.test",
            "ALFA_ALLOWED_NETWORKS": "127.0.0.0/8",
            "ALFA_SERVER_NETWORKS": "127.0.0.0/8,172.16.0.0/12",
            "ALFA_PUBLIC_URL": self.url,
            "ALFA_LEASE_S": "2",
            "ALFA_HEARTBEAT_S": "0.5",
            "ALFA_RECONCILE_S": "0.5",
            "ALFA_MIN_FREE_BYTES": "1000000",
            "ALFA_KEEP__SCHEDULED": "false",
            "ALFA_KEEP__PROVE_DAYS": "0",
            **settings,
        }
        self.processes: list[Process] = []
        auth = httpx.BasicAuth(LOGIN.encode(), PASSWORD.encode())
        self.http = httpx.AsyncClient(base_url=self.url, auth=auth, timeout=70, trust_env=False)

    def start(self, *arguments: str) -> Process:
        """One process of the service; its log is in the folder."""
        log = self.folder / f"{arguments[0]}-{len(self.processes)}.log"
        self.processes.append(Process(arguments, environment=self.environment, log=log))
        return self.processes[-1]

    def start_worker(self) -> Process:
        """One more worker."""
        return self.start("worker")

    def run(self, *arguments: str) -> None:
        """A command of the service, to its end."""
        if self.start(*arguments).wait(60) != 0:
            raise RuntimeError(self.logs()[-3000:])

    async def __aenter__(self) -> Self:
        self.run("migrate")
        self.start("api", "--port", str(self.port))
        deadline = time.monotonic() + START_S
        while True:
            try:
                if (await self.http.get("/healthz")).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"the API did not start: {self.logs()[-3000:]}")
            await asyncio.sleep(0.05)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.http.aclose()
        for process in self.processes:
            self.end(process)

    def end(self, process: Process, number: int = signal.SIGTERM) -> None:
        """End a process of ours; one that does not go is killed."""
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def logs(self) -> str:
        """What all processes wrote."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    # What people do with it

    async def call(self, method: str, path: str, *, status: int | None = None, **options: Any) -> Any:
        """The body of an answer; an assertion fails where its status is another than expected."""
        answer = await self.http.request(method, path, **options)
        if status is not None:
            assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def register(self, **attributes: Any) -> str:
        """The id of a new server, once it is prepared."""
        made = await self.call("POST", "/servers/", json=attributes, status=201)
        await self.ended(made["data"]["relationships"]["operation"]["data"]["id"], expect="ok")
        return str(made["data"]["id"])

    async def create(self, name: str, server_id: str, **attributes: Any) -> tuple[str, str]:
        """The ids of a new client and of the operation that creates it."""
        body = {"name": name, "email": "lab@example.org", "server_id": int(server_id), **attributes}
        made = await self.call("POST", "/clients/", json=body, status=201)
        return str(made["data"]["id"]), str(made["data"]["relationships"]["operation"]["data"]["id"])

    async def ended(self, operation_id: str, *, expect: str | None = None, within_s: float = 300) -> Any:
        """The attributes of an operation that has ended."""
        deadline = time.monotonic() + within_s
        pause = 0.1
        while True:
            found = (await self.call("GET", f"/operations/{operation_id}", status=200))["data"]["attributes"]
            if found["completed"] is not None:
                break
            assert time.monotonic() < deadline, (found, self.logs()[-5000:])
            await asyncio.sleep(pause)
            pause = min(0.4, pause * 2)
        if expect is not None:
            assert found["completed"] == expect, (found, await self.log(f"/operations/{operation_id}/log"))
        return found

    async def client(self, client_id: str) -> Any:
        """The attributes of a client."""
        return (await self.call("GET", f"/clients/{client_id}", status=200))["data"]["attributes"]

    async def log(self, path: str) -> list[dict[str, Any]]:
        """All lines of a log, by its own links."""
        lines: list[dict[str, Any]] = []
        link: str | None = path
        while link:
            page = await self.call("GET", link, status=200)
            lines += page["data"]["attributes"]["lines"]
            link = page["links"].get("next")
            if link == page["links"]["self"]:
                break
        return lines
