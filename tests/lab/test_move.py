"""Clients move between real hosts with all their data, while people write to them; they are deleted, and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.lab.conftest import ENGINES, ON_MARIADB, ON_POSTGRESQL, Lab
from tests.lab.hosts import LabHost
from tests.lab.test_switch import assert_saved, containers, run
from tests.lab.test_switch import load as visitors
from tests.processes import Process

FULL = os.environ.get("ALFA_LAB") == "full"


@dataclass(frozen=True, slots=True)
class Data:
    """What a client has: rows with so many words of 32 bytes, and files."""

    rows: int
    words: int
    files: int
    file_bytes: int


SMALL = Data(30_000, 12, 2_000, 12_000)
MUCH = Data(1_000_000, 28, 20_000, 50_000) if FULL else SMALL
KILLED = ("copy_files", "stop_client", "copy_database", "commit", "forward") if FULL else ("copy_database",)
"""Steps of a move in which the worker dies."""
SECOND_PORT = 2222
PASSWORD = "Пароль $HOME 'и' \"кавычки\" 3"

MARIADB = """
CREATE TABLE big (id int PRIMARY KEY, words text, twice int AS (id * 2) STORED, photo blob);
INSERT INTO big (id, words, photo)
    SELECT seq, CONCAT('Ёж 😀 ', {words}), UNHEX(MD5(seq))
      FROM seq_1_to_{rows};
CREATE TABLE child (id int PRIMARY KEY, big_id int, FOREIGN KEY (big_id) REFERENCES big (id));
INSERT INTO child VALUES (1, 1), (2, 2);
CREATE TABLE changes (big_id int, was text);
CREATE DEFINER={user} VIEW names AS SELECT words FROM big;
CREATE DEFINER={user} FUNCTION loud(text_in text) RETURNS text DETERMINISTIC RETURN CONCAT(text_in, '!');
CREATE DEFINER={user} TRIGGER kept BEFORE UPDATE ON big FOR EACH ROW INSERT INTO changes VALUES (OLD.id, OLD.words);
UPDATE big SET words = loud(words) WHERE id = 1;
"""
POSTGRESQL = """
CREATE TABLE big (id int PRIMARY KEY, words text, twice int GENERATED ALWAYS AS (id * 2) STORED, photo bytea);
INSERT INTO big (id, words, photo)
    SELECT g, 'Ёж 😀 ' || {words}, decode(md5(g::text), 'hex')
      FROM generate_series(1, {rows}) g;
CREATE TABLE child (id int PRIMARY KEY, big_id int REFERENCES big (id));
INSERT INTO child VALUES (1, 1), (2, 2);
CREATE TABLE changes (big_id int, was text);
CREATE VIEW names AS SELECT words FROM big;
CREATE FUNCTION loud(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 || '!' $$;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO changes VALUES (OLD.id, OLD.words); RETURN NEW; END $$;
CREATE TRIGGER kept BEFORE UPDATE ON big FOR EACH ROW EXECUTE FUNCTION keep();
UPDATE big SET words = loud(words) WHERE id = 1;
"""
ROUNDTRIP = "UPDATE big SET words = loud(words) WHERE id = 2; SELECT count(*) FROM changes; SELECT count(*) FROM names;"
"""What only works where view, function and trigger came along."""
MAKE_FILES = """
set -eu
cd -- "$1"
mkdir -p many 'имя с пробелом'
head -c $(($2 * $3)) /dev/urandom | split --bytes="$3" --suffix-length=5 --numeric-suffixes - many/f
ln -s ../many/f00000 'имя с пробелом/link'
"""


TREE = """
cd -- "$1"
find . -path ./framework -prune -o -printf '%P %y %m %l\\n' | LC_ALL=C sort
find . -path ./framework -prune -o -type f -exec sha256sum {} + | LC_ALL=C sort
"""


@dataclass(frozen=True, slots=True)
class Way:
    """A client's server, and another one with the same database system."""

    lab: Lab
    engine: str
    hosts: tuple[LabHost, LabHost]
    servers: tuple[str, str]

    async def born(self, name: str, data: Data) -> tuple[str, Any]:
        """A client with its data on the first of them."""
        values = {"image": "1.0.0-master", "owner_password": PASSWORD}
        client_id, operation_id = await self.lab.system.create(f"{name}-{self.engine}", self.servers[0], **values)
        await self.lab.system.ended(operation_id, expect="ok")
        client = await self.lab.system.client(client_id)
        self.sql(0, client_id, self._fill(client_id, data))
        argv = ["bash", "-c", MAKE_FILES, "files", f"/srv/alfa/clients/{client['name']}/storage", str(data.files)]
        assert self.hosts[0].exec([*argv, str(data.file_bytes)]).returncode == 0
        return client_id, client

    def _fill(self, client_id: str, data: Data) -> str:
        if self.engine == "postgresql":
            words = " || ".join(f"md5({n} || ' ' || g)" for n in range(data.words))
            return POSTGRESQL.format(rows=data.rows, words=words)
        words = ", ".join(f"MD5(CONCAT({n}, ' ', seq))" for n in range(data.words))
        query = f"SELECT CONCAT(QUOTE(user), '@', QUOTE(host)) FROM mysql.user WHERE user = 'alfa_{client_id}' LIMIT 1;"
        return MARIADB.format(rows=data.rows, words=words, user=self.sql(0, client_id, query).strip())

    def sql(self, place: int, client_id: str, text: str) -> str:
        """What the client's database says, asked as its owner."""
        database = f"alfa_{client_id}"
        if self.engine == "mariadb":
            argv = ["mariadb", "-BN", database]
        else:
            argv = ["runuser", "-u", "postgres", "--", "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-d", database]
            text = f"SET ROLE {database};\n{text}"
        done = self.hosts[place].exec(argv, stdin=text.encode(), timeout=900)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def tables(self, place: int, client_id: str) -> str:
        """Something that changes with any change of the big table."""
        if self.engine == "mariadb":
            return self.sql(place, client_id, "CHECKSUM TABLE big, child, changes, users;")
        return self.sql(place, client_id, "SELECT count(*), sum(hashtext(b::text)::bigint) FROM big b;")

    def tree(self, place: int, name: str) -> str:
        """Every file of a client, but for what the application compiles for itself."""
        storage = f"/srv/alfa/clients/{name}/storage"
        return self.hosts[place].exec(["bash", "-c", TREE, "tree", storage]).stdout.decode()

    def residue(self, place: int, client_id: str, name: str) -> list[str]:
        """What is left of a client on a host, but for its archive."""
        host = self.hosts[place]
        listing = "ls -d /srv/alfa/clients/$1 /etc/nginx/conf.d/alfa-$1.conf* /srv/alfa/pages/clients/$1* 2>/dev/null"
        found = host.exec(["bash", "-c", listing, "residue", name]).stdout.decode().split()
        if self.engine == "mariadb":
            argv = ["mariadb", "-BNe", f"show databases like 'alfa\\_{client_id}'"]
        else:
            query = f"SELECT datname FROM pg_database WHERE datname = 'alfa_{client_id}'"
            argv = ["runuser", "-u", "postgres", "--", "psql", "-Atc", query]
        return [*found, *host.exec(argv).stdout.decode().split(), *containers(host, name)]


async def second_door(host: LabHost) -> None:
    """The host answers SSH by the second port, too."""
    async with asyncio.timeout(60):
        while True:
            host.exec(["/usr/sbin/sshd", "-p", str(SECOND_PORT)])  # one more finds the port taken, and ends
            try:
                _, writer = await asyncio.open_connection(host.address, SECOND_PORT)
            except OSError:
                await asyncio.sleep(0.5)
            else:
                writer.close()
                return


@pytest.fixture(scope="module")
async def ports(lab: Lab) -> dict[str, str]:
    """The ids of servers, by database system: each host again, by another port, with the other one's system."""
    found = {}
    for engine, other in zip(ENGINES, reversed(ENGINES), strict=True):
        host = lab.hosts[other]
        await second_door(host)
        found[engine] = await lab.system.register(
            name=f"{host.name}-{engine}",
            host=host.address,
            port=SECOND_PORT,
            database_engine=engine,
            base_domain="lab.test",
            tls="none",
        )
    return found


@pytest.fixture(params=ENGINES)
def way(request: pytest.FixtureRequest, lab: Lab, ports: dict[str, str]) -> Way:
    """Two servers with one database system."""
    engine = request.param
    other = next(host for name, host in lab.hosts.items() if name != engine)
    return Way(lab, engine, (lab.hosts[engine], other), (lab.servers[engine], ports[engine]))


async def answers(host: LabHost, domain: str) -> int:
    """What a visitor of a host gets."""
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"http://{host.address}/", headers={"Host": domain})).status_code


@pytest.mark.parametrize("way", ON_MARIADB, indirect=True)
async def test_a_client_moves_with_all_its_data(way: Way) -> None:
    lab = way.lab
    client_id, client = await way.born("move", MUCH)
    name, domain = client["name"], client["domain"]
    before, files = way.tables(0, client_id), way.tree(0, name)
    async with visitors(way.hosts[0], domain, write=True) as writers:
        began = time.monotonic()
        ended = await run(lab, f"/clients/{client_id}/move_to/{way.servers[1]}")
        took_s = time.monotonic() - began
    assert way.tables(1, client_id) == before
    assert way.tree(1, name) == files
    assert_saved(way.hosts[1], way.engine, client_id, writers.saved)
    assert [await answers(host, domain) for host in way.hosts] == [200, 200]
    assert containers(way.hosts[0], name) == []
    assert len(containers(way.hosts[1], name)) == 1
    after = await lab.system.client(client_id)
    assert (after["status"], after["available"], after["maintenance"]) == ("active", True, False)
    steps = {step["name"]: step for step in ended["steps"]}
    print(f"\n{way.engine}: the move took {took_s:.1f} s, {writers.answers}")
    print({name: (step["started_at"][14:22], step["finished_at"][14:22]) for name, step in steps.items()})

    await run(lab, f"/operations/{ended['id']}/undo", confirm_loss="true")
    assert way.tables(0, client_id) == before
    assert [await answers(host, domain) for host in way.hosts] == [200, 200]

    deleted = await lab.system.call("DELETE", f"/clients/{client_id}", status=202)
    await lab.system.ended(deleted["data"]["id"], expect="ok")
    assert [way.residue(place, client_id, name) for place in (0, 1)] == [[], []]
    assert (await lab.system.client(client_id))["status"] == "archived"
    await run(lab, f"/clients/{client_id}/restore", server_id=way.servers[1])
    assert way.tables(1, client_id) == before
    assert way.tree(1, name) == files
    assert way.sql(1, client_id, ROUNDTRIP).split() == ["2", str(MUCH.rows)]
    async with httpx.AsyncClient(trust_env=False) as http:
        login = {"login": client["owner_login"], "password": PASSWORD}
        url = f"http://{way.hosts[1].address}/login"
        assert (await http.post(url, json=login, headers={"Host": domain})).status_code == 200


@pytest.mark.full
async def test_a_client_goes_there_and_back_ten_times(way: Way) -> None:
    client_id, client = await way.born("swing", SMALL)
    before, files = way.tables(0, client_id), way.tree(0, client["name"])
    for number in range(1, 21):
        await run(way.lab, f"/clients/{client_id}/move_to/{way.servers[number % 2]}")
    assert way.tables(0, client_id) == before
    assert way.tree(0, client["name"]) == files
    assert containers(way.hosts[1], client["name"]) == []
    leftovers = "ls -A /srv/alfa/clients/$1; ls -A /srv/alfa/archive 2>/dev/null"
    for host in way.hosts:
        found = host.exec(["bash", "-c", leftovers, "left", client["name"]]).stdout.decode().split()
        assert not [one for one in found if "move-" in one or "transfer" in one or ".part" in one], found


@contextmanager
def one_dies(lab: Lab, step: str) -> Iterator[Process]:
    """The only worker dies in a step of a move; in the end there are two that do not."""
    for process in [one for one in lab.system.processes if "worker" in one.args]:
        lab.system.end(process)
    lab.system.environment["ALFA_FAILPOINT"] = f"move_client.{step}:effect:kill"
    dying = lab.system.start_worker()
    del lab.system.environment["ALFA_FAILPOINT"]
    yield dying
    for _ in range(2):
        lab.system.start_worker()


@pytest.mark.full
@pytest.mark.parametrize("way", ON_POSTGRESQL, indirect=True)
async def test_a_killed_worker_is_replaced_at_any_step_of_a_move(way: Way) -> None:
    """Each time the client goes to the other host, and is never on both of them, nor on none."""
    client_id, client = await way.born("killed", SMALL)
    before, files = way.tables(0, client_id), way.tree(0, client["name"])
    for number, step in enumerate(KILLED, 1):
        there, here = number % 2, 1 - number % 2
        with one_dies(way.lab, step) as dying:
            path = f"/clients/{client_id}/move_to/{way.servers[there]}"
            operation = (await way.lab.system.call("POST", path, status=202))["data"]["id"]
            assert await asyncio.to_thread(dying.wait, 180) == -signal.SIGKILL
        ended = await way.lab.system.ended(operation, expect="ok", within_s=900)
        assert ended["attempt"] == 2
        assert (way.tables(there, client_id), way.tree(there, client["name"])) == (before, files)
        assert containers(way.hosts[here], client["name"]) == []
        assert len(containers(way.hosts[there], client["name"])) == 1
        assert [await answers(host, client["domain"]) for host in way.hosts] == [200, 200]
        after = await way.lab.system.client(client_id)
        assert (after["status"], after["available"], after["maintenance"]) == ("active", True, False)
