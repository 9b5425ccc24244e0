"""The command `alfa-cloud`: one image, its processes and its tools."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from alfa_cloud import config


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
    sandbox = commands.add_parser("sandbox", help="everything on this machine, with a practice server")
    sandbox.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    sandbox.add_argument("--data-dir", type=Path, default=Path(os.environ.get("ALFA_DATA_DIR", ".sandbox")))
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


def run_sandbox(options: argparse.Namespace) -> int:
    """Run everything on this machine."""
    from alfa_cloud.sandbox.run import main as run_everything

    return asyncio.run(run_everything(options.data_dir, options.port))


COMMANDS = {
    "api": run_api,
    "worker": run_worker,
    "migrate": run_migrate,
    "openapi": run_openapi,
    "sandbox": run_sandbox,
}

if __name__ == "__main__":
    sys.exit(main())
