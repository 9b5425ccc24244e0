"""`make run`: the whole system on this machine, with embedded stores, a mailbox and a practice server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alfa_cloud.sandbox import child
from alfa_cloud.sandbox.child import FolderLock, SandboxError
from alfa_cloud.sandbox.first_steps import Door, FirstSteps, instructions
from alfa_cloud.sandbox.mailbox import Mailbox
from alfa_cloud.sandbox.practice import PracticeServer
from alfa_cloud.sandbox.practice.folder import LOOPBACK, is_free, write_aside
from alfa_cloud.sandbox.processes import Program, our_argv
from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis

LOCAL_NETWORKS: Final = "127.0.0.0/8,::1/128"
SERVER_NETWORKS: Final = f"{LOCAL_NETWORKS},172.16.0.0/12"
"""Servers may stand on the loopback, and in Docker's bridge networks."""

WATCH_S: Final = 1.0


def say(text: str) -> None:
    """Tell the person at the terminal."""
    print(text, flush=True)


async def main(data_dir: Path, port: int) -> int:
    """Run the sandbox until INT or TERM; the exit status is 1 where it does not come up.

    Args:
        data_dir: everything lies in it; a second start finds it again.
        port: of the API, on the loopback.
    """
    over = asyncio.Event()
    sandbox = Sandbox(data_dir.absolute(), port)  # noqa: ASYNC240  # no file is touched
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if over.is_set():
            sandbox.hurry()
        else:
            say("\nStopping; once more to hurry.")
            over.set()

    # Also where the shell started us with INT ignored, as `command &` does in a script.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    running = asyncio.create_task(sandbox.run())
    told = asyncio.create_task(over.wait())
    try:
        await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    except SandboxError as error:
        print(f"alfa-cloud sandbox: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        told.cancel()
    return 0


@dataclass(frozen=True, slots=True)
class Login:
    """The administrator of this sandbox, and the key that encrypts its secrets."""

    login: str
    password: str
    secret_key: str


def kept_login(data_dir: Path) -> Login:
    """The login of the environment, else the one that was generated here once; the file is for its owner only."""
    path = data_dir / "login.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    login = os.environ.get("ALFA_ADMIN_LOGIN") or kept.get("login") or "admin"
    password = os.environ.get("ALFA_ADMIN_PASSWORD") or kept.get("password") or secrets.token_urlsafe(18)
    key = kept.get("secret_key") or base64.b64encode(secrets.token_bytes(32)).decode()
    if not kept:
        values = {"login": login, "password": password, "secret_key": key}
        write_aside(path, json.dumps(values, ensure_ascii=False, indent=2) + "\n", mode=0o600)
    return Login(login, password, key)


class Sandbox:
    """Everything that `make run` starts."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.port = port
        self.logs = data_dir / "logs"
        self.postgres = EmbeddedPostgres(data_dir / "postgres")
        self.redis = EmbeddedRedis(data_dir / "redis")
        self.mailbox = Mailbox(data_dir / "mailbox")
        self.programs: list[Program] = []
        self.practice: PracticeServer | None = None

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{LOOPBACK}:{self.port}"

    async def run(self) -> None:
        """Bring everything up, say so, and keep it up; being cancelled takes everything down, in order.

        Raises:
            SandboxError: something does not come up; the message says what to do.
        """
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        lock = FolderLock(self.data_dir / "lock", "The sandbox")
        lock.acquire()
        async with AsyncExitStack() as stack:
            stack.callback(lock.release)
            if not is_free(self.port):
                raise SandboxError(f"Port {self.port} is taken; say another one: make run PORT=8001")
            login = kept_login(self.data_dir)
            practice = await self._start_parts(stack)
            env = self._environment(login)
            await self._migrate(env)
            async with asyncio.TaskGroup() as group:
                for name, words in (("api", self._api_words()), ("worker", ("worker",))):
                    program = Program(name, our_argv(*words), env, self.logs, say)
                    self.programs.append(program)
                    group.create_task(program.keep())
                for name, part in (
                    ("PostgreSQL", self.postgres),
                    ("Redis", self.redis),
                    ("The practice server", practice),
                ):
                    group.create_task(watch(name, lambda part=part: part.alive, part.start))  # type: ignore[misc]
                await self._introduce(login, practice)

    def hurry(self) -> None:
        """What does not listen is killed."""
        for program in self.programs:
            program.kill()
        if self.practice is not None:
            self.practice.kill()

    async def _start_parts(self, stack: AsyncExitStack) -> PracticeServer:
        """The stores, the mailbox and the practice server run, at the same time; they end in reverse."""
        say(f"Starting in {self.data_dir} ...")
        practice = self.practice = PracticeServer(self.data_dir / "practice")
        parts = (self.postgres, self.redis, practice)
        for part in parts:
            stack.push_async_callback(asyncio.to_thread, part.stop)
        stack.push_async_callback(self.mailbox.stop)
        await self.mailbox.start()
        tasks = [asyncio.create_task(asyncio.to_thread(part.start)) for part in parts]
        try:
            await asyncio.shield(asyncio.gather(*tasks))
        finally:
            # A thread can't be cancelled: what it starts must be there before it can be stopped.
            await asyncio.wait(tasks)
        return practice

    def _api_words(self) -> tuple[str, ...]:
        return "api", "--host", LOOPBACK, "--port", str(self.port)

    def _environment(self, login: Login) -> dict[str, str]:
        """The settings of the children: those of this sandbox win, others may be given from outside."""
        given = dict(os.environ)
        defaults = {
            "ALFA_ALLOWED_ORIGINS": self.url,
            "ALFA_ALLOWED_NETWORKS": LOCAL_NETWORKS,
            "ALFA_SERVER_NETWORKS": SERVER_NETWORKS,
            "ALFA_SMTP_URL": self.mailbox.smtp_url,
            "ALFA_MAIL_FROM": "Alfa Cloud <cloud@example.org>",
            "ALFA_PUBLIC_URL": self.url,
            "ALFA_MIN_FREE_BYTES": "200000000",
            "ALFA_POLL_DELAY_S": "0.1",
            "LOGNAME": "alfa",  # asyncssh wants one, also where the user has no name
        }
        own = {
            "ALFA_DATABASE_URL": self.postgres.url,
            "ALFA_REDIS_URL": self.redis.url,
            "ALFA_SECRET_KEY": login.secret_key,
            "ALFA_ADMIN_LOGIN": login.login,
            "ALFA_ADMIN_PASSWORD": login.password,
            "ALFA_SANDBOX": "1",
        }
        return {**defaults, **{key: value for key, value in given.items() if value}, **own}

    async def _migrate(self, env: dict[str, str]) -> None:
        """The database has the newest schema.

        Raises:
            SandboxError: it has not.
        """
        program = Program("migrate", our_argv("migrate"), env, self.logs, say)
        status = await program.run()
        if status:
            words = child.tail(program.log)
            raise SandboxError(f"`alfa-cloud migrate` ended with {status}; its last words, of {program.log}:\n{words}")

    async def _introduce(self, login: Login, practice: PracticeServer) -> None:
        """The practice server is registered over the API itself, and the person knows where everything is."""
        door = Door(self.url, login.login, login.password)
        async with FirstSteps(door) as steps:
            problem = await steps.prepare(practice, say)
            server_id = await steps.practice_id(practice) if not problem else None
        say(instructions(door, self.mailbox.url, practice, server_id))
        if problem:
            say(f"\n{problem}")


async def watch(name: str, alive: Callable[[], bool], start: Callable[[], None]) -> None:
    """Say when a part died, and start it again."""
    while True:
        await asyncio.sleep(WATCH_S)
        if alive():
            continue
        say(f"{name} died; it is started again.")
        restart = asyncio.create_task(asyncio.to_thread(start))
        try:
            await asyncio.shield(restart)
        except SandboxError as error:
            say(str(error))
        finally:
            await asyncio.wait({restart})
