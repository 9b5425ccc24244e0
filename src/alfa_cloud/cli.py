"""The command `alfa-cloud`: one image, its processes and its tools."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from alfa_cloud import config
from alfa_cloud.console import run as console
from alfa_cloud.errors import FieldError
from alfa_cloud.specs import Secret


def main(argv: list[str] | None = None) -> int:
    """Run one of the commands; the exit status is 2 for a bad call or bad settings."""
    options = parser().parse_args(argv)
    try:
        return COMMANDS[options.command](options)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = "__".join(str(part) for part in problem["loc"]).upper()
            print(f"alfa-cloud: {'ALFA_' + name + ': ' if name else ''}{problem['msg']}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="alfa-cloud", description="Laboratories' private clouds on a fleet of servers.")
    commands = root.add_subparsers(dest="command", required=True)
    api = commands.add_parser("api", help="serve the HTTP API")
    api.add_argument("--host", default="127.0.0.1", help="address to listen on")
    api.add_argument("--port", type=int, default=8000)
    api.add_argument("--processes", type=int, default=1)
    commands.add_parser("worker", help="run operations")
    commands.add_parser("migrate", help="bring the database to the newest schema")
    commands.add_parser("openapi", help="print the OpenAPI document")
    reset = commands.add_parser("reset-password", help="give the API a new login and password, on its host")
    reset.add_argument("--login", help="else it is asked for; without a terminal it is the first line of the input")
    sandbox = commands.add_parser("sandbox", help="everything on this machine, with a practice server")
    sandbox.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    sandbox.add_argument("--data-dir", type=Path, default=Path(os.environ.get("ALFA_DATA_DIR", ".sandbox")))
    console.add_commands(commands)
    return root


def run_api(options: argparse.Namespace) -> int:
    """Serve the API."""
    from alfa_cloud.api import server

    config.load()
    server.serve(options.host, options.port, options.processes)
    return 0


def run_worker(_: argparse.Namespace) -> int:
    """Run operations until told to stop."""
    import uvloop

    from alfa_cloud.jobs import worker

    uvloop.run(worker.main(config.load()))
    return 0


def run_migrate(_: argparse.Namespace) -> int:
    """Bring the database to the newest schema."""
    from alfa_cloud import bootstrap

    bootstrap.migrate(config.load())
    return 0


def run_openapi(_: argparse.Namespace) -> int:
    """Print the OpenAPI document."""
    from alfa_cloud.api import server

    json.dump(server.openapi_document(), sys.stdout, ensure_ascii=False, indent=1)
    return 0


def run_reset_password(options: argparse.Namespace) -> int:
    """Give the API a new login and password, asked for or read from standard input."""
    from sqlalchemy.exc import DBAPIError

    settings = config.load()
    try:
        login, password = _ask_login(options.login)
    except (EOFError, KeyboardInterrupt):
        print("\nalfa-cloud: nothing is changed", file=sys.stderr)
        return 2
    except FieldError as error:
        return _refuse(error)
    try:
        existed = asyncio.run(_reset(settings.database_url, login, password))
    except FieldError as error:
        return _refuse(error)
    except (OSError, DBAPIError) as error:
        reason = getattr(error, "orig", error)
        print(f"alfa-cloud: the database did not take it, nothing is changed: {reason}", file=sys.stderr)
        return 1
    word = "has a new login and password; the old ones are refused from now on" if existed else "was made"
    print(f"The administrator {login!r} {word}.")
    return 0


def _refuse(error: FieldError) -> int:
    print(f"alfa-cloud: {error.field}: {error.detail}", file=sys.stderr)
    return 2


async def _reset(database_url: str, login: str, password: Secret) -> bool:
    """Whether there was an administrator before."""
    from alfa_cloud.db import make_engine, make_session_factory
    from alfa_cloud.services import credentials

    engine = make_engine(database_url, pool_size=1)
    try:
        async with make_session_factory(engine).begin() as session:
            return await credentials.reset(session, login, password)
    finally:
        await engine.dispose()


def _ask_login(login: str | None) -> tuple[str, Secret]:
    """The login and password from the terminal, or as lines of standard input; never from the command line."""
    if not sys.stdin.isatty():
        login = _line("login") if login is None else login
        return login, Secret(_line("password"))
    login = input("New login: ") if login is None else login
    password = Secret(getpass.getpass("New password: "))
    if Secret(getpass.getpass("The same again: ")) != password:
        raise FieldError("password", "The two differ; nothing is changed.")
    return login, password


def _line(name: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise FieldError(name, "Standard input ends before it.")
    return line.rstrip("\r\n")


def run_sandbox(options: argparse.Namespace) -> int:
    """Run everything on this machine."""
    from alfa_cloud.sandbox.run import main as run_everything

    return asyncio.run(run_everything(options.data_dir, options.port))


COMMANDS = {
    "api": run_api,
    "worker": run_worker,
    "migrate": run_migrate,
    "openapi": run_openapi,
    "reset-password": run_reset_password,
    "sandbox": run_sandbox,
    **dict.fromkeys(console.COMMANDS, console.run),
}

if __name__ == "__main__":
    sys.exit(main())
