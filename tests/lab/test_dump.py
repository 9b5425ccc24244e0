"""A client's database is dumped and put back on real hosts, whatever its owner put into it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.prepare_server import prepare_server
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings, EnsureDatabase, EnsureFolder
from alfa_cloud.playbooks.steps.data import (
    CheckDumpSpace,
    EnsureDump,
    RestoreDump,
    read_manifest,
    restore,
    table_counts,
)
from alfa_cloud.remote import dump, keys, mariadb, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.output import Masker
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import Address, ClientSpec, DatabaseEngine, Layout, Tls
from tests.lab.conftest import ON_MARIADB, ON_POSTGRESQL
from tests.lab.hosts import LabHost
from tests.playbooks.conftest import Lines, carry_out
from tests.playbooks.specs import PASSWORD, make_spec

NUMBERS = {DatabaseEngine.MARIADB: 9001, DatabaseEngine.POSTGRESQL: 9002}
BIG = 60_000
IMAGE = "alfa:1.0.0-master"
BUSY = """$it = new PDO("mysql:host=172.30.0.1;dbname=$argv[1]", $argv[2], $argv[3]);
$it->beginTransaction(); $it->exec("DELETE FROM measured"); echo "inside\\n"; sleep(600);"""
"""PHP: a transaction that never ends."""

MARIADB = r"""
SET NAMES utf8mb4;
CREATE TABLE people (id int PRIMARY KEY, name text, photo longblob, born datetime(6), place point, flags bit(5),
    twice int AS (id * 2) STORED, once int AS (id) VIRTUAL, kind enum('a', 'б'), hidden int INVISIBLE DEFAULT 7);
INSERT INTO people (id, name, photo, born, place, flags, kind, hidden) VALUES
    (1, 'Ёж 😀\n(2,\'x\'),\r\n\\', X'00ff5c270a', '2026-01-01 01:02:03.000004', POINT(1, 2), b'10101', 'б', 8),
    (0, 'DEFINER=`root`@`localhost` /*!50013 DEFINER=`a`@`b` ', NULL, NULL, NULL, NULL, NULL, NULL),
    (3, '', '', NULL, NULL, 0, 'a', 9), (4, 'long', REPEAT(X'00ff', 6000000), NULL, NULL, NULL, NULL, NULL);
CREATE TABLE measured (person int, value decimal(20, 10), FOREIGN KEY (person) REFERENCES people (id));
INSERT INTO measured VALUES (1, 1.5), (3, 0.25);
CREATE TABLE empty (id int);
CREATE TABLE `\! touch /tmp/C` (id int COMMENT '\\! touch /tmp/C');
INSERT INTO `\! touch /tmp/C` VALUES (1);
CREATE TABLE `two
\\! touch /tmp/C
lines` (id int) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN MAXVALUE);
INSERT INTO `two
\\! touch /tmp/C
lines` VALUES (1), (11);
CREATE SEQUENCE numbers;
SELECT NEXTVAL(numbers);
CREATE VIEW named AS SELECT id, name FROM people WHERE name <> '';
CREATE TABLE seen (who text);
DELIMITER //
CREATE FUNCTION twofold(x int) RETURNS int DETERMINISTIC BEGIN
/*
CREATE DEFINER=`stays`@`here`
*/
RETURN x * 2; END//
DELIMITER ;
"""
MARIADB_ADMIN = r"""
USE {database};
DELIMITER //
CREATE DEFINER='{user}'@'172.30.0.0/255.255.255.0' TRIGGER loud BEFORE INSERT ON people FOR EACH ROW
BEGIN
    SET NEW.name = UPPER(NEW.name);
    INSERT INTO seen VALUES (CURRENT_USER());
END//
CREATE DEFINER='root'@'localhost' PROCEDURE fill() BEGIN INSERT INTO seen VALUES (CURRENT_USER()); END//
CREATE DEFINER='root'@'localhost' EVENT later ON SCHEDULE EVERY 1 DAY DO INSERT INTO seen VALUES (CURRENT_USER())//
CREATE DEFINER='root'@'localhost' SQL SECURITY DEFINER VIEW rooted AS SELECT CURRENT_USER() AS who//
DELIMITER ;
"""
MARIADB_SPOIL = """
SET FOREIGN_KEY_CHECKS = 0; DROP TABLE people; DROP VIEW named; DROP FUNCTION twofold; DELETE FROM measured;
CREATE TABLE later (id int); CREATE VIEW people AS SELECT * FROM later; DROP SEQUENCE numbers; DROP EVENT later;
CREATE PROCEDURE added() SELECT 1;
"""
MARIADB_LOOK = r"""
CHECKSUM TABLE people, measured, empty, `\! touch /tmp/C`, `two
\\! touch /tmp/C
lines`, seen EXTENDED;
SELECT id, name, MD5(photo), born, ST_AsText(place), flags + 0, twice, once, kind, hidden FROM people ORDER BY id;
SELECT * FROM named; SELECT twofold(4); SELECT NEXTVAL(numbers) > 1;
SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1;
SELECT routine_name, routine_type, routine_definition FROM information_schema.routines
 WHERE routine_schema = DATABASE() ORDER BY 1;
SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = DATABASE();
SELECT event_name, status, starts FROM information_schema.events WHERE event_schema = DATABASE();
SELECT constraint_name FROM information_schema.referential_constraints WHERE constraint_schema = DATABASE();
"""
MARIADB_DEFINERS = """
SELECT DISTINCT definer FROM (SELECT definer FROM information_schema.triggers WHERE trigger_schema = DATABASE()
 UNION SELECT definer FROM information_schema.events WHERE event_schema = DATABASE()
 UNION SELECT definer FROM information_schema.routines WHERE routine_schema = DATABASE()
 UNION SELECT definer FROM information_schema.views WHERE table_schema = DATABASE()) AS all_of_them;
INSERT INTO people (id) VALUES (9); CALL fill(); SELECT DISTINCT who FROM seen; SELECT who FROM rooted;
"""
MARIADB_BIG = f"""CREATE TABLE big (id int PRIMARY KEY, words text);
INSERT INTO big SELECT seq, MD5(RAND(seq)) FROM seq_1_to_{BIG};"""

POSTGRESQL = r"""
CREATE EXTENSION pg_trgm;
CREATE TABLE people (id int PRIMARY KEY, name text, photo bytea, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO people VALUES (1, E'Ёж 😀\n\\.\nCOPY people (id) FROM stdin;', '\x00ff5c2e0a'),
    (2, NULL, NULL), (3, '', '');
CREATE TABLE measured (person int REFERENCES people, value numeric CHECK (value > 0));
INSERT INTO measured VALUES (1, 1.5), (2, 0.25);
CREATE TABLE empty (id serial);
CREATE TABLE "\! touch /tmp/C" (id int);
COMMENT ON TABLE "\! touch /tmp/C" IS E'x\n\\! touch /tmp/C\n';
INSERT INTO "\! touch /tmp/C" VALUES (1);
CREATE TABLE "two
\! touch /tmp/C
lines" (id int);
INSERT INTO "two
\! touch /tmp/C
lines" VALUES (1), (2);
CREATE SCHEMA "Other";
CREATE TABLE "Other".whole (id int) PARTITION BY RANGE (id);
CREATE TABLE "Other".part PARTITION OF "Other".whole FOR VALUES FROM (0) TO (10);
INSERT INTO "Other".whole SELECT generate_series(1, 4);
CREATE VIEW named AS SELECT id FROM people WHERE name IS NOT NULL;
CREATE TABLE seen (who text, super text);
CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN INSERT INTO public.seen VALUES (session_user, current_setting('is_superuser')); RETURN NEW; END $f$;
CREATE TRIGGER loud BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION loud();
CREATE TRIGGER loud_too BEFORE INSERT ON measured FOR EACH ROW EXECUTE FUNCTION loud();
ALTER TABLE measured ENABLE ALWAYS TRIGGER loud_too;
CREATE FUNCTION sly(x int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $f$
BEGIN BEGIN EXECUTE 'ALTER ROLE ' || quote_ident(session_user) || ' SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
RETURN true; END $f$;
CREATE INDEX sly ON people (sly(id));
SELECT lo_from_bytea(0, '\x0102');
"""
POSTGRESQL_SPOIL = """
DROP VIEW named; DROP TABLE measured; TRUNCATE people; DROP EXTENSION pg_trgm; CREATE TABLE later (id int);
CREATE SCHEMA after; SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
"""
POSTGRESQL_LOOK = """
SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM people t; SELECT * FROM people ORDER BY id;
SELECT md5(string_agg(t::text, '|' ORDER BY person)) FROM measured t; SELECT * FROM "Other".whole ORDER BY 1;
SELECT id FROM named ORDER BY 1; SELECT similarity('ab', 'abc'); SELECT last_value, is_called FROM empty_id_seq;
SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1;
SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1;
SELECT relname, relkind FROM pg_class WHERE relnamespace IN ('public'::regnamespace, '"Other"'::regnamespace)
 ORDER BY 1;
SELECT md5(lo_get(oid)::text) FROM pg_largeobject_metadata;
SELECT conname FROM pg_constraint WHERE contype IN ('f', 'p') ORDER BY 1;
SELECT pg_get_userbyid(datdba), has_database_privilege('public', oid, 'CONNECT')
  FROM pg_database WHERE datname = current_database();
"""
POSTGRESQL_BIG = f"""CREATE TABLE big AS SELECT g AS id, md5(g::text) AS words FROM generate_series(1, {BIG}) g;"""


@dataclass(frozen=True, slots=True)
class Site:
    """A client with a database that holds something, and the way to its server."""

    spec: ClientSpec
    host: LabHost
    pool: SshPool
    address: Address
    lines: Lines

    def session(self) -> SshHost:
        """A new operation on the server."""
        return SshHost(
            self.pool, self.address, Layout(), sink=self.lines, operation_dir=Layout().operation_dir(str(uuid.uuid4())),
            fence=1, masker=Masker(), guard=lambda: None,
        )  # fmt: skip

    @property
    def is_mariadb(self) -> bool:
        return self.spec.engine is DatabaseEngine.MARIADB

    async def ask(self, sql: str) -> str:
        """What the client's database says to the client."""
        ask = mariadb.mariadb_as_client if self.is_mariadb else postgresql.psql_as_client
        return (await self.session().run(ask(self.spec, sql))).text

    def exec(self, script: str, *arguments: str) -> str:
        """What a script of root's prints on the host."""
        done = self.host.exec(["bash", "-c", script, "test", *arguments])
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @contextmanager
    def wrapped(self, program: str, script: str) -> Iterator[None]:
        """A script stands before a program, which it finds under /usr/bin."""
        path = f"/usr/local/bin/{program}"
        self.host.exec(["sh", "-c", f"cat >{path}; chmod 755 {path}"], stdin=f"#!/bin/bash\n{script}\n".encode())
        try:
            yield
        finally:
            self.host.exec(["rm", "-f", path])

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Somebody else is logged in as the client, and holds a table; in MariaDB from a container."""
        name, lines = "alfa-test-busy", ""
        if self.is_mariadb:
            argv = ["docker", "run", "--rm", "--name", name, "--network", "alfa", "--entrypoint", "php", IMAGE, "-r"]
            argv += [BUSY, "--", self.spec.database, self.spec.database_user, PASSWORD.reveal()]
        else:
            lines = "BEGIN; LOCK TABLE people; SELECT 'inside';\n"
            argv = ["psql", "-qAt", "-h", "172.30.0.1", "-U", self.spec.database_user, self.spec.database]
            argv = ["env", f"PGPASSFILE={postgresql.login_path(self.spec)}", *argv]
        command = ["docker", "exec", "--interactive", self.host.name, *argv]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as one:
            assert one.stdin is not None
            assert one.stdout is not None
            one.stdin.write(lines.encode())
            one.stdin.flush()
            assert any(b"inside" in line for line in one.stdout)
            yield
            one.kill()
        self.host.exec(["docker", "rm", "--force", name])


@asynccontextmanager
async def a_site(host: LabHost, spec: ClientSpec) -> AsyncIterator[Site]:
    """A client on a real host, with nothing but `cloud_settings`."""
    private, public = keys.generate_key()
    host.authorize(public)
    host_key = " ".join(host.exec(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.decode().split()[:2])
    pool = SshPool(private, allowed_networks=[ipaddress.ip_network("172.16.0.0/12")])
    site = Site(spec, host, pool, Address(spec.id, host.address, 22, "www-data", host_key), Lines())
    await carry_out(prepare_server(Layout(), spec.engine, Tls.NONE), site.session())
    steps = [EnsureFolder(spec), EnsureDatabase(spec, PASSWORD), EnsureCloudSettings(spec, PASSWORD, (("a", "б"),))]
    await carry_out(Playbook(steps), site.session())
    site.exec("rm -f /tmp/C")
    yield site
    for step in reversed(steps):
        await step.undo(site.session())
    site.exec('rm -rf "$1"', dump.folder(spec))
    await pool.close()


async def fill(site: Site) -> None:
    """The client's database holds what is hard to dump."""
    spec = site.spec
    if site.is_mariadb:
        argv = (*mariadb.client_argv(spec), "--comments")
        await site.session().run(Command(argv, stdin=MARIADB.encode(), sudo=True))
        await site.session().run(mariadb.mariadb(MARIADB_ADMIN.format(database=spec.database, user=spec.database_user)))
    else:
        await site.ask(POSTGRESQL)


def spec_for(engine: DatabaseEngine) -> ClientSpec:
    """A new client."""
    number = NUMBERS[engine]
    return make_spec(id=number, uid=str(uuid.uuid4()), name=f"dumped-{number}", engine=engine)


@pytest.fixture(params=list(DatabaseEngine))
async def site(request: pytest.FixtureRequest, hosts: dict[str, LabHost]) -> AsyncIterator[Site]:
    """A client on a real host, with a database that holds something."""
    async with a_site(hosts[request.param], spec_for(DatabaseEngine(request.param))) as site:
        await fill(site)
        yield site


async def look(site: Site) -> str:
    """All that is to come back."""
    return await site.ask(MARIADB_LOOK if site.is_mariadb else POSTGRESQL_LOOK)


async def dumped(site: Site) -> str:
    """The name of a dump of the client's database."""
    name = f"test-{uuid.uuid4()}"
    await carry_out(
        Playbook([CheckDumpSpace(site.spec, name, 0), EnsureDump(site.spec, name, "test", frozen=True)]), site.session()
    )
    return name


async def test_what_a_client_put_in_comes_back_and_nothing_of_it_runs(site: Site) -> None:
    before, counts = await look(site), await table_counts(site.session(), site.spec)
    name = await dumped(site)
    manifest = await read_manifest(site.session(), site.spec, name)
    assert manifest is not None
    assert dict(manifest.tables) == counts
    await site.ask(MARIADB_SPOIL if site.is_mariadb else POSTGRESQL_SPOIL)
    with site.busy():
        assert await carry_out(Playbook([RestoreDump(site.spec, name)]), site.session()) == ["RestoreDump"]
    assert await look(site) == before
    assert await table_counts(site.session(), site.spec) == counts
    assert await EnsureDatabase(site.spec, PASSWORD).is_satisfied(site.session())
    if site.is_mariadb:
        assert set((await site.ask(MARIADB_DEFINERS)).split()) == {f"{site.spec.database_user}@localhost"}
    else:
        await site.ask("INSERT INTO people VALUES (9);")
        assert (await site.ask("SELECT DISTINCT who, super FROM seen;")).split() == [f"{site.spec.database_user}|off"]
        rights = await site.session().run(
            postgresql.psql(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{site.spec.database_user}';")
        )
        assert rights.text.strip() == "f"
    assert site.exec('ls /tmp/C 2>/dev/null || true; stat -c %a:%U "$1" "$1.json"', dump.path(site.spec, name)) == (
        "600:root\n600:root\n"
    )


@pytest.mark.full
@pytest.mark.parametrize("site", ON_MARIADB, indirect=True)
async def test_a_truncated_dump_is_noticed(site: Site) -> None:
    program = "mariadb-dump" if site.is_mariadb else "pg_dump"
    size = 2000
    with site.wrapped(program, f'/usr/bin/{program} "$@" | head -c {size}; exit 0'):
        with pytest.raises(StepFailedError) as caught:
            await dumped(site)
        assert caught.value.step_code == "dump_damaged"
    with (
        site.wrapped(program, f'/usr/bin/{program} "$@"; exit 3'),
        pytest.raises(CommandFailedError, match="could not be dumped"),
    ):
        await dumped(site)
    assert site.exec('ls -A "$1"', dump.folder(site.spec)) == ""


@pytest.mark.full
@pytest.mark.parametrize("site", ON_POSTGRESQL, indirect=True)
async def test_a_dump_that_was_changed_touches_nothing(site: Site) -> None:
    before, name = await look(site), await dumped(site)
    site.exec('printf x | dd of="$1" bs=1 seek=700 conv=notrunc 2>/dev/null', dump.path(site.spec, name))
    with pytest.raises(StepFailedError) as caught:
        await restore(site.session(), site.spec, name)
    assert caught.value.step_code == "dump_damaged"
    site.exec('truncate -s -1 "$1"', dump.path(site.spec, name))
    with pytest.raises(StepFailedError) as caught:
        await restore(site.session(), site.spec, name)
    assert caught.value.step_code == "dump_missing"
    assert await look(site) == before


@pytest.mark.full
@pytest.mark.parametrize("site", ON_POSTGRESQL, indirect=True)
async def test_rows_that_did_not_come_back_are_noticed(site: Site) -> None:
    name = await dumped(site)
    path = dump.manifest_path(site.spec, name)
    manifest = json.loads(site.exec('cat "$1"', path))
    table = "people" if site.is_mariadb else "public.people"
    rows = manifest["tables"][table]
    manifest["tables"][table] += 1
    site.exec('printf %s "$2" >"$1"', path, json.dumps(manifest))
    with pytest.raises(StepFailedError, match=f"{table}: {rows} instead of {rows + 1}") as caught:
        await restore(site.session(), site.spec, name)
    assert caught.value.step_code == "restore_differs"


@pytest.mark.full
@pytest.mark.parametrize("site", [DatabaseEngine.MARIADB], indirect=True)
async def test_rows_that_are_refused_are_in_no_log(site: Site) -> None:
    before, name = await look(site), await dumped(site)
    script = """
    case " $* " in *--binary-mode*) ;; *) exec /usr/bin/mariadb "$@" ;; esac
    sed 's/^INSERT INTO `measured`/INSERT INTO `no_such`/' | /usr/bin/mariadb "$@"
    """
    with site.wrapped("mariadb", script), pytest.raises(CommandFailedError, match="no_such' was not locked"):
        await restore(site.session(), site.spec, name)
    assert not any("0.25" in line for line in [*site.lines.texts, *site.lines.notes])
    await restore(site.session(), site.spec, name)
    assert await look(site) == before


@pytest.mark.full
@pytest.mark.parametrize("site", ON_MARIADB, indirect=True)
async def test_a_restore_that_was_killed_is_begun_again(site: Site) -> None:
    await site.ask(MARIADB_BIG if site.is_mariadb else POSTGRESQL_BIG)
    before, counts = await look(site), await table_counts(site.session(), site.spec)
    name = await dumped(site)
    program = "mariadb" if site.is_mariadb else "pg_restore"
    # Once, in the middle of the data: everything of the detached command dies, and it leaves no status.
    script = rf"""
    case " $* " in *--binary-mode*|*--exit-on-error*) ;; *) exec /usr/bin/{program} "$@" ;; esac
    rm "$0"
    head -c 700000 | /usr/bin/{program} "$@"
    pkill -KILL -s "$(ps -o sid= -p $$ | tr -d ' ')"
    """
    with site.wrapped(program, script):
        session = site.session()
        await restore(session, site.spec, name)
        assert site.exec('ls -d "$1".died-1', f"{session._operation_dir}/restore-{name}")
    assert await table_counts(site.session(), site.spec) == counts
    assert await look(site) == before


@pytest.mark.full
@pytest.mark.parametrize("site", ON_POSTGRESQL, indirect=True)
async def test_a_full_disk_leaves_nothing(site: Site) -> None:
    await site.ask(MARIADB_BIG if site.is_mariadb else POSTGRESQL_BIG)
    before = await look(site)
    site.exec('mkdir -p "$1" && mount -t tmpfs -o size=1m tmpfs "$1"', dump.folder(site.spec))
    try:
        with pytest.raises(CommandFailedError, match="No space left on device"):
            await dumped(site)
        assert site.exec('ls -A "$1"', dump.folder(site.spec)) == ""
    finally:
        site.exec('umount "$1"', dump.folder(site.spec))
    assert await look(site) == before


@pytest.mark.parametrize("site", ON_MARIADB, indirect=True)
async def test_what_was_begun_twice_is_done_once_and_no_client_is_in_its_way(site: Site) -> None:
    """A step is begun again while what a lost connection left still runs; clients may take locks of any name."""
    engine = mariadb if site.is_mariadb else postgresql
    await site.ask("CREATE TABLE held (id int);")
    taken = f"GET_LOCK('{site.spec.database}', 9)", "SLEEP(60)"
    if not site.is_mariadb:
        taken = f"pg_advisory_lock(hashtext('{site.spec.database}'))", "pg_sleep(60)"
    held = asyncio.create_task(site.ask(f"SELECT {taken[0]}; INSERT INTO held VALUES (1); SELECT {taken[1]};"))
    async with asyncio.timeout(20):
        while not (await site.ask("SELECT * FROM held;")).strip():
            await asyncio.sleep(0.1)
    async with asyncio.timeout(40):
        await asyncio.gather(*(site.session().run(engine.create_tenant(site.spec, PASSWORD)) for _ in range(4)))
        await asyncio.gather(*(site.session().run(engine.empty_database(site.spec)) for _ in range(4)))
    with pytest.raises(CommandFailedError):
        await held
    assert await EnsureDatabase(site.spec, PASSWORD).is_satisfied(site.session())
    assert "held" not in await site.ask("SELECT table_name FROM information_schema.tables WHERE table_name = 'held';")
