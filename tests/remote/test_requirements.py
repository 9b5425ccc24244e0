"""What a server must have: looked for, judged, mended by exact lines; and how a bare one gets it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from alfa_cloud.remote import docker, provision, requirements
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.remote.requirements import Finding
from alfa_cloud.specs import DatabaseEngine, Layout, Tls
from tests.fakes import FakeHost

NETWORK = [{"IPAM": {"Config": [{"Subnet": "172.30.0.0/24"}]}, "Options": {docker.ICC: "false"}}]
LISTENING = {"role": True, "rule": True, "listen": "localhost, 172.30.0.1", "hba_file": "/x"}
GOOD: dict[str, bytes] = {
    "true": b"",
    "id": b"root\n",
    "flock": b"flock from util-linux 2.41\n",
    "curl": b"curl 8.14.1 (x86_64)\n",
    "docker version": json.dumps({"Server": {"Version": "26.1.5+dfsg1"}}).encode(),
    "docker compose": b"2.26.1-4\n",
    "nginx -v": b"nginx/1.26.3",
    "nginx -t": b"",
    "psql": b"17.11 (Debian)\n",
    "psql json": json.dumps(LISTENING).encode(),
    "mariadb": b"11.8.6-MariaDB\n",
    "mariadb bind": b"127.0.0.1,172.30.0.1\n",
    "zstd": b"v1.5.7",
    "git": b"git version 2.47.3",
    "certbot": b"certbot 4.0.0",
    "docker network": json.dumps(NETWORK).encode(),
    "docker container": b'{"Names":"a","Ports":"127.0.0.1:20000->80/tcp"}\n{"Names":"b","Ports":"80/tcp"}\n',
    "cat": b"1\n",
    "df": b"       Avail\n76674527232\n",
    "date": b"",
    "home": b"",
    "keys": b"",
}


def kind(command: Command) -> str:
    """What is asked, in a word or two."""
    words, sql = command.argv, command.stdin
    if words[0] == "sh":
        return "df" if "df " in words[2] else "keys" if ".ssh" in words[2] else "home"
    if "psql" in words:
        return "psql json" if b"json" in sql else "psql"
    if words[0] == "mariadb":
        return "mariadb bind" if b"bind_address" in sql else "mariadb"
    return " ".join(words[:2]) if words[0] in ("docker", "nginx") else words[0]


def server(**changed: bytes | int) -> FakeHost:
    """A server where all is well, but for this; a number is an exit status."""

    def answer(command: Command) -> Result:
        name = kind(command)
        given = changed.get(name.replace(" ", "_"), f"{time.time():.0f}".encode() if name == "date" else GOOD[name])
        return Result(given, b"something 9.9") if isinstance(given, int) else Result(0, given)

    return FakeHost(answer)


async def look(
    changed: dict[str, bytes | int] | None = None, engine: DatabaseEngine = DatabaseEngine.POSTGRESQL
) -> dict[str, Finding]:
    found = await requirements.check_all(server(**(changed or {})), engine, Tls.CERTBOT, 2_000_000_000)
    return {row.name: row for row in found}


@pytest.mark.parametrize("engine", DatabaseEngine)
async def test_a_good_server_meets_them_all(engine: DatabaseEngine) -> None:
    found = await look(engine=engine)
    assert all(row.ok and not row.mend for row in found.values())
    assert found["docker"].found == "26.1.5+dfsg1"
    assert found["docker"].needed == "≥ 20.10"
    assert found["free disk space"].found == "76.7 GB"
    assert found[f"{engine} for containers"].ok
    assert not found["git"].required
    assert found["zstd"].required


@pytest.mark.parametrize(
    ("changed", "name", "found", "mend"),
    [
        ({"id": 1}, "sudo", "", "NOPASSWD"),
        ({"docker_version": 1}, "docker", "", "apt-get install docker.io"),
        ({"docker_version": b'{"Server":{"Version":"19.03.1"}}'}, "docker", "19.03.1", "docker.io"),
        ({"docker_version": b"[]"}, "docker", "", "docker.io"),
        ({"docker_compose": b"1.29.2"}, "docker compose", "1.29.2", "docker-compose"),
        ({"curl": 127}, "curl", "", "apt-get install curl"),
        ({"psql": 2}, "postgresql", "", "apt-get install postgresql"),
        ({"certbot": 127}, "certbot", "", "apt-get install certbot"),
        ({"nginx__t": 1, "nginx_-t": 1}, "nginx configuration", "", "nginx -t"),
        ({"docker_network": 1}, "docker network", "", "docker network create --driver=bridge --subnet=172.30.0.0/24"),
        ({"docker_network": b'[{"IPAM":{"Config":[{"Subnet":"172.30.0.0/24"}]}}]'}, "docker network", "", "enable_icc"),
        ({"cat": b"0\n"}, "ip_nonlocal_bind", "0", "net.ipv4.ip_nonlocal_bind=1"),
        ({"psql_json": b'{"role":true,"rule":false,"listen":"*"}'}, "postgresql for containers", "*", "pg_hba.conf"),
        (
            {"psql_json": b'{"role":true,"rule":true,"listen":"localhost"}'},
            "postgresql for containers",
            "localhost",
            "1i",
        ),
        ({"df": b"Avail\n1999999999\n"}, "free disk space", "2.0 GB", "prune"),
    ],
)
async def test_what_is_missing_is_named_with_the_line_that_mends_it(
    changed: dict[str, bytes | int], name: str, found: str, mend: str
) -> None:
    rows = await look(changed)
    assert [row.name for row in rows.values() if not row.ok] == [name]
    assert rows[name].found == found
    assert mend in rows[name].mend
    assert not requirements.all_met(rows.values())


async def test_mariadb_that_listens_nowhere_else() -> None:
    rows = await look({"mariadb_bind": b"127.0.0.1\n"}, DatabaseEngine.MARIADB)
    assert "bind-address = 127.0.0.1,172.30.0.1" in rows["mariadb for containers"].mend
    assert not requirements.all_met(rows.values())


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"docker_container": b'{"Names":"x","Ports":"0.0.0.0:80->80/tcp, [::]:80->80/tcp"}'}, "published ports"),
        ({"docker_container": b'{"Names":"x","Ports":":::80->80/tcp"}'}, "published ports"),
        ({"keys": b"/var/www/.ssh "}, "authorized_keys"),
        ({"date": b"1000000000\n"}, "clock"),
        ({"git": 127}, "git"),
        ({"home": 1}, "home folder"),
    ],
)
async def test_advice_keeps_no_client_away(changed: dict[str, bytes | int], name: str) -> None:
    rows = await look(changed)
    assert [row.name for row in rows.values() if not row.ok] == [name]
    assert rows[name].mend
    assert requirements.all_met(rows.values())


async def test_a_login_without_a_shell_is_all_that_is_asked() -> None:
    host = server(true=1)
    (found,) = await requirements.check(host, DatabaseEngine.MARIADB, Tls.NONE)
    assert (found.name, found.ok, found.mend) == ("login shell", False, "usermod --shell /bin/bash www-data")
    assert (len(host.commands), host.logins) == (2, 2)


async def test_a_shell_that_was_given_after_the_connection_began_counts() -> None:
    """It is asked for on a new connection: sshd knows the shell as it was when one began."""
    host = server()
    working = host.answer
    host.answer = lambda command: working(command) if host.logins > 1 else Result(1)
    found = await requirements.check(host, DatabaseEngine.MARIADB, Tls.NONE)
    assert (found[0].name, found[0].ok, host.logins) == ("login shell", True, 2)


async def test_a_database_on_loopback_needs_no_other_address() -> None:
    host = server()
    host.layout = Layout(database_host="127.0.0.1")
    found = await requirements.check_all(host, DatabaseEngine.POSTGRESQL, Tls.NONE, 0)
    assert "ip_nonlocal_bind" not in {row.name for row in found}


class Programs:
    """A folder of programs that stand for a server's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        for name in ("sh", "sed", "grep", "cut", "cat"):
            (folder / name).symlink_to(f"/bin/{name}")

    def add(self, name: str, script: str = "exit 0") -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >>{self.log}\n{script}\n')
        path.chmod(0o755)

    def run(self, command: Command) -> subprocess.CompletedProcess[str]:
        argv = [word for word in command.argv if word != "env" and "=" not in word.partition("\n")[0][:40]]
        environment = {"PATH": str(self.folder), "HOME": "/"}
        return subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Nothing but a shell."""
    return Programs(tmp_path)


def test_a_bare_server_misses_every_package_once_it_is_asked(programs: Programs) -> None:
    done = programs.run(provision.missing(DatabaseEngine.MARIADB, Tls.CERTBOT))
    assert done.returncode == 1
    names = set(done.stdout.split())
    assert {"docker.io", "docker-cli|docker.io", "nginx", "mariadb-server", "certbot", "zstd", "iptables"} <= names
    assert "postgresql" not in names


def test_a_server_with_docker_of_another_origin_is_left_as_it_is(programs: Programs) -> None:
    for name in ("dockerd", "docker", "nginx", "curl", "zstd", "git", "sysctl", "ip", "iptables", "flock"):
        programs.add(name)
    for name in ("update-ca-certificates", "psql", "pg_lsclusters", "apparmor_parser"):
        programs.add(name)
    done = programs.run(provision.missing(DatabaseEngine.POSTGRESQL, Tls.NONE))
    assert (done.returncode, done.stdout) == (0, "")
    programs.add("docker", '[ "$1" != compose ]')
    done = programs.run(provision.missing(DatabaseEngine.POSTGRESQL, Tls.NONE))
    assert done.stdout.split() == ["docker-compose-plugin|docker-compose-v2|docker-compose"]


def test_packages_are_installed_by_the_names_that_the_system_knows(programs: Programs) -> None:
    for name in ("dpkg", "apt-get"):
        programs.add(name)
    programs.add("apt-cache", 'case $3 in docker-compose|nginx) echo "$3 | 1 | deb" ;; esac')
    command = provision.install(["docker-compose-plugin|docker-compose-v2|docker-compose", "nginx"])
    assert command.detached == "packages"
    assert command.argv[:2] == ("env", "DEBIAN_FRONTEND=noninteractive")
    done = programs.run(command)
    assert done.returncode == 0, done.stderr
    first, *_, last = programs.calls
    assert first == "dpkg --configure -a --force-confold"
    assert last.startswith("apt-get -q -y -o DPkg::Lock::Timeout=600")
    assert last.endswith("install --no-install-recommends -- docker-compose nginx")
    done = programs.run(provision.install(["nginx", "not-there|neither"]))
    assert done.returncode == 1
    assert "No package not-there is to be had" in done.stderr
    assert "install" not in programs.calls[-1]


def test_a_service_is_started_by_what_the_server_has(programs: Programs) -> None:
    for name in ("service", "systemctl"):
        programs.add(name)
    done = programs.run(provision.start_service("nginx"))
    systemd = os.path.isdir("/run/systemd/system")
    assert done.stdout.split() == ["systemd" if systemd else "init"]
    assert programs.calls == ["systemctl enable --now -- nginx.service" if systemd else "service nginx start"]
