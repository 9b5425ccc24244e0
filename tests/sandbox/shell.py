"""A raw SSH client for the practice server, and what a test puts on it by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncssh
import httpx

from alfa_cloud.sandbox.practice import PracticeServer

PSQL = (
    "sudo -n -- runuser -u postgres -- psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 "
    "--dbname=postgres"
)
PASSWORD = 'it\'s a $ecret \\ with "quotes"'


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left."""

    status: int | None
    out: str
    err: str


class Shell:
    """One connection."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection

    async def run(self, line: str, stdin: str = "") -> Ran:
        """Run a line; the status is None where none came, -1 after a signal."""
        result = await self.connection.run(line, input=stdin.encode(), encoding=None)
        out, err = (bytes(part or b"") for part in (result.stdout, result.stderr))  # type: ignore[arg-type]
        return Ran(result.exit_status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))

    async def ok(self, line: str, stdin: str = "") -> str:
        """Run a line that works; what it printed."""
        ran = await self.run(line, stdin)
        assert ran.status == 0, ran
        return ran.out

    async def json(self, line: str) -> Any:
        """Run a line that prints JSON."""
        return json.loads(await self.ok(line))


@asynccontextmanager
async def connect(server: PracticeServer, key: asyncssh.SSHKey) -> AsyncIterator[Shell]:
    """A connection that takes the server's own host key only."""
    known = asyncssh.import_known_hosts(f"[{server.host}]:{server.port} {server.host_key}\n")
    options = {"username": server.username, "client_keys": [key], "known_hosts": known, "config": None}
    async with asyncssh.connect(server.host, server.port, **options) as connection:
        yield Shell(connection)


def compose_document(server: PracticeServer, name: str, number: int, **changes: Any) -> dict[str, Any]:
    """A client's compose file; JSON is YAML too."""
    layout = server.layout
    folder = layout.client_dir(name)
    service = {
        "image": "alfa:1.0.0-master",
        "container_name": f"alfa-{name}-app-a",
        "env_file": [{"path": "app.env", "format": "raw"}],
        "environment": {"APP_NAME": "Lab $$5"},
        "ports": [f"127.0.0.1:{layout.first_port + number}:80"],
        "volumes": [f"{folder}/storage:/srv/app/storage"],
        "networks": ["alfa"],
        "restart": "unless-stopped",
        "labels": {"alfa.client": name},
        "mem_limit": 1024**3,
        "cap_drop": ["ALL"],
        **changes,
    }
    return {"services": {"app-a": service}, "networks": {"alfa": {"external": True}}}


async def write_client(shell: Shell, server: PracticeServer, name: str, number: int, **changes: Any) -> str:
    """A client's folder and the containers' network are there; the beginning of a compose command."""
    layout = server.layout
    folder = layout.client_dir(name)
    env = {"DB_CONNECTION": "pgsql", "DB_HOST": layout.database_host, "DB_PORT": str(layout.database_port)}
    env |= {"DB_DATABASE": name, "DB_USERNAME": name, "DB_PASSWORD": PASSWORD}
    document = compose_document(server, name, number, **changes)
    await shell.run("docker network create --driver=bridge --subnet=172.30.0.0/24 --gateway=172.30.0.1 -- alfa")
    await shell.ok(f"install --directory --mode=0750 --owner=root --group=root -- {folder}")
    await shell.ok(f"cat > {folder}/app.env", "".join(f"{key}={value}\n" for key, value in env.items()))
    await shell.ok(f"cat > {folder}/compose.yaml", json.dumps(document))
    return f"docker compose --project-name=alfa-{name} --file={folder}/compose.yaml"


async def create_database(shell: Shell, name: str, password: str = PASSWORD) -> None:
    """A role with a password, and its database."""
    quoted = password.replace("'", "''")
    await shell.ok(PSQL, f"CREATE ROLE {name} LOGIN PASSWORD '{quoted}';\nCREATE DATABASE {name} OWNER {name};\n")


async def write_vhost(shell: Shell, server: PracticeServer, name: str, number: int, more: str = "") -> None:
    """nginx leads a name to a client's port."""
    layout = server.layout
    text = f"""upstream alfa_{name} {{ server 127.0.0.1:{layout.first_port + number}; }}
    server {{
        listen {layout.http_port};
        server_name {name}.test;
        error_page 502 504 =503 /unavailable.html;
        location = /unavailable.html {{
            internal; root {layout.root}/pages; add_header Retry-After 30 always;
        }}
        location / {{ proxy_pass http://alfa_{name}; proxy_set_header Host $host; }}
        {more}
    }}"""
    await shell.ok(f"cat > {layout.vhost_path(name)}", text)
    await shell.ok("sudo -n -- nginx -t && sudo -n -- nginx -s reload")


async def ask(server: PracticeServer, name: str, path: str = "/", **options: Any) -> httpx.Response:
    """Ask the server's nginx for a name."""
    async with httpx.AsyncClient(trust_env=False) as client:
        method = options.pop("method", "GET")
        url = f"http://{server.host}:{server.http_port}{path}"
        return await client.request(method, url, headers={"Host": f"{name}.test"}, **options)
