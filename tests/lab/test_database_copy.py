"""A client's database goes from one real host straight into another's, whatever its owner put into it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from alfa_cloud.errors import CommandFailedError, ConnectionLostError, StepFailedError
from alfa_cloud.playbooks.playbook import Elsewhere, Playbook
from alfa_cloud.playbooks.steps.client import EnsureDatabase
from alfa_cloud.playbooks.steps.data import table_counts
from alfa_cloud.playbooks.steps.database_copy import CheckDatabaseSpace, CopyDatabase, VerifyDatabase
from alfa_cloud.remote import dump, dump_stream, mariadb, postgresql
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import DatabaseEngine
from tests.lab.conftest import ON_MARIADB
from tests.lab.hosts import LabHost
from tests.lab.test_dump import MARIADB_DEFINERS, MARIADB_LOOK, POSTGRESQL_LOOK, Site, a_site, fill, spec_for
from tests.playbooks.conftest import carry_out
from tests.playbooks.specs import PASSWORD

FULL = os.environ.get("ALFA_LAB") == "full"
ROWS = 1_000_000 if FULL else 30_000
WORDS = 30 if FULL else 14
"""Each 32 bytes, in every row."""

MARIADB_BIG = f"""CREATE TABLE big (id int PRIMARY KEY, words text, twice int AS (id * 2) STORED, photo blob);
INSERT INTO big (id, words, photo)
    SELECT seq, CONCAT('Ёж 😀 ', {", ".join(f"MD5(CONCAT({n}, ' ', seq))" for n in range(WORDS))}), UNHEX(MD5(seq))
      FROM seq_1_to_{ROWS};"""
POSTGRESQL_BIG = f"""CREATE TABLE big (id int PRIMARY KEY, words text, twice int GENERATED ALWAYS AS (id * 2) STORED,
    photo bytea);
INSERT INTO big (id, words, photo)
    SELECT g, 'Ёж 😀 ' || {" || ".join(f"md5({n} || ' ' || g)" for n in range(WORDS))}, decode(md5(g::text), 'hex')
      FROM generate_series(1, {ROWS}) g;"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A client with a full database on one host, and with an empty one on another."""

    here: Site
    there: Site

    def copy(self) -> tuple[SshHost, CopyDatabase]:
        """A new operation that copies the database, and its host."""
        host = self.here.session()
        name = host._operation_dir.rpartition("/")[2]
        return host, CopyDatabase(self.here.spec, self.target(), self.there.spec, name)

    def verification(self) -> VerifyDatabase:
        return VerifyDatabase(self.here.spec, self.target(), self.there.spec)

    def target(self) -> Elsewhere:
        return Elsewhere("the other server", self.there.session())

    async def fill_up(self) -> None:
        """There is enough in the database for a copy to take a while."""
        spec = self.here.spec
        if self.here.is_mariadb:
            command = mariadb.mariadb_as_client(spec, MARIADB_BIG, timeout_s=1800)
        else:
            command = postgresql.psql_as_client(spec, POSTGRESQL_BIG, timeout_s=1800)
        await self.here.session().run(command)

    def tables_there(self) -> str:
        """The names of the tables there, as the administrator sees them; a load holds their locks."""
        script = (
            'mariadb -BNe "SHOW TABLES FROM $1"' if self.there.is_mariadb else
            'cd / && runuser -u postgres -- psql -qAtc "SELECT relname FROM pg_class" "$1"'
        )  # fmt: skip
        return self.there.host.exec(["bash", "-c", script, "test", self.there.spec.database]).stdout.decode()

    async def begun(self) -> None:
        """Something has arrived."""
        async with asyncio.timeout(60):
            while "big" not in (await asyncio.to_thread(self.tables_there)).split():
                await asyncio.sleep(0.1)

    def is_clean(self) -> bool:
        """Whether nothing of a copy is left there."""
        busy = self.there.exec('ls -A "$1"; pgrep -fl alfa-consume || true', self.there.spec.directory)
        return "counted" not in busy and "consume" not in busy


@pytest.fixture(params=list(DatabaseEngine))
async def pair(request: pytest.FixtureRequest, hosts: dict[str, LabHost]) -> AsyncIterator[Pair]:
    """A client on two real hosts."""
    engine = DatabaseEngine(request.param)
    spec, other = spec_for(engine), next(host for name, host in hosts.items() if name != engine)
    async with a_site(hosts[engine], spec) as here, a_site(other, spec) as there:
        await fill(here)
        yield Pair(here, there)


async def look(site: Site) -> str:
    """All that is to be the same."""
    return await site.ask(MARIADB_LOOK if site.is_mariadb else POSTGRESQL_LOOK)


async def test_what_a_client_put_in_arrives_and_nothing_of_it_runs(pair: Pair) -> None:
    await pair.fill_up()
    before = await look(pair.here)
    await pair.there.ask("CREATE TABLE later (id int);")
    host, copy = pair.copy()
    playbook = Playbook([CheckDatabaseSpace(pair.here.spec, pair.target(), 0), copy, pair.verification()])
    assert await carry_out(playbook, host) == ["CopyDatabase"]
    assert await carry_out(playbook, host) == []
    print("\n".join(pair.here.lines.notes))
    assert await look(pair.there) == before
    assert await look(pair.here) == before
    assert await table_counts(pair.there.session(), pair.there.spec) == await table_counts(host, pair.here.spec)
    assert await EnsureDatabase(pair.there.spec, PASSWORD).is_satisfied(pair.there.session())
    assert pair.is_clean()
    user = pair.there.spec.database_user
    if pair.there.is_mariadb:
        assert set((await pair.there.ask(MARIADB_DEFINERS)).split()) == {f"{user}@localhost"}
    else:
        await pair.there.ask("INSERT INTO people VALUES (9);")
        assert (await pair.there.ask("SELECT DISTINCT who, super FROM seen;")).split() == [f"{user}|off"]
        asked = postgresql.psql(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{user}';")
        for site in (pair.here, pair.there):
            assert (await site.session().run(asked)).text.strip() == "f"
    for site in (pair.here, pair.there):
        assert site.exec("ls /tmp/C 2>/dev/null || true") == ""


@pytest.mark.full
@pytest.mark.parametrize("end", ["here", "there"])
async def test_a_copy_that_was_cut_is_begun_again(pair: Pair, end: str) -> None:
    await pair.fill_up()
    site: Site = getattr(pair, end)
    host, copy = pair.copy()
    program = "mariadb-dump" if pair.here.is_mariadb else "pg_dump"
    with pair.here.wrapped(program, f'/usr/bin/{program} "$@" | {{ head -c 25000000; exec sleep 120 <&-; }}'):
        copying = asyncio.create_task(copy.apply(host))
        await pair.begun()
        await site.pool.drop(site.address.server_id)
        with pytest.raises(ConnectionLostError):
            await copying
    assert not await copy.is_satisfied(host)
    assert await carry_out(Playbook([copy, pair.verification()]), host) == ["CopyDatabase"]
    assert pair.is_clean()


@pytest.mark.full
async def test_a_copy_that_a_dead_worker_left_does_not_mix_with_the_next(pair: Pair) -> None:
    await pair.fill_up()
    produce = dump_stream.produce(pair.here.spec).argv
    half = pair.here.host.exec(["sh", "-c", '"$@" | head -c 3000000', "sh", *produce]).stdout
    argv = ["docker", "exec", "-i", pair.there.host.name, *dump_stream.consume(pair.there.spec).argv]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as left:
        assert left.stdin is not None
        left.stdin.write(half)
        left.stdin.flush()
        await pair.begun()
        host, copy = pair.copy()
        assert await carry_out(Playbook([copy, pair.verification()]), host) == ["CopyDatabase"]
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(left.wait) != 0
    assert pair.is_clean()


@pytest.mark.full
async def test_two_copies_at_once_do_not_mix(pair: Pair) -> None:
    consume = dump_stream.consume(pair.there.spec).argv
    path = pair.there.spec.directory
    with subprocess.Popen(
        ["docker", "exec", "-i", pair.there.host.name, "flock", path, "cat"], stdin=subprocess.PIPE
    ) as held:
        assert held.stdin is not None
        while "cat" not in pair.there.exec("pgrep -xl cat || true"):
            await asyncio.sleep(0.05)
        quick = [word.replace("--wait 60", "--wait 0.2") for word in consume]
        done = pair.there.host.exec(quick)
        held.stdin.close()
    assert (done.returncode, b"does not end" in done.stderr) == (dump_stream.BUSY, True)
    assert "cloud_settings" in pair.tables_there()


@pytest.mark.full
@pytest.mark.parametrize("pair", ON_MARIADB, indirect=True)
async def test_a_dump_that_is_cut_and_says_nothing_is_noticed(pair: Pair) -> None:
    program = "mariadb-dump" if pair.here.is_mariadb else "pg_dump"
    whole = len(pair.here.host.exec(dump.engine_of(pair.here.spec).stream_argv(pair.here.spec)).stdout)
    for size in (0, 1, 2000, whole // 2, whole - 45):
        with pair.here.wrapped(program, f'/usr/bin/{program} "$@" | head -c {size}; exit 0'):
            host, copy = pair.copy()
            with pytest.raises(StepFailedError) as caught:
                await copy.apply(host)
            assert caught.value.step_code == "dump_damaged", size
            assert not await copy.is_satisfied(host)
    with pair.here.wrapped(program, f'/usr/bin/{program} "$@"; echo "out of luck" >&2; exit 3'):
        host, copy = pair.copy()
        with pytest.raises(CommandFailedError, match="out of luck"):
            await copy.apply(host)
        assert not await copy.is_satisfied(host)
        await copy.undo(host)
    assert await carry_out(Playbook([copy, pair.verification()]), host) == ["CopyDatabase"]
    assert pair.is_clean()


@pytest.mark.full
async def test_a_load_that_fails_names_its_reason_and_is_tried_again(pair: Pair) -> None:
    program = "mariadb" if pair.there.is_mariadb else "pg_restore"
    loads = "--binary-mode" if pair.there.is_mariadb else "--exit-on-error"
    script = rf"""
    case " $* " in *{loads}*) ;; *) exec /usr/bin/{program} "$@" ;; esac
    head -c 100000 | /usr/bin/{program} "$@"; echo "no luck" >&2; exit 5
    """
    host, copy = pair.copy()
    with pair.there.wrapped(program, script), pytest.raises(CommandFailedError, match="no luck") as caught:
        await copy.apply(host)
    assert caught.value.exit_status == 1
    assert await carry_out(Playbook([copy, pair.verification()]), host) == ["CopyDatabase"]


@pytest.mark.full
@pytest.mark.parametrize("pair", [DatabaseEngine.MARIADB], indirect=True)
async def test_rows_that_did_not_arrive_are_noticed(pair: Pair) -> None:
    script = r"""
    case " $* " in *--binary-mode*) ;; *) exec /usr/bin/mariadb "$@" ;; esac
    sed '/^(3,0.25/d; s/^(1,1.5000000000),$/(1,1.5000000000);/' | /usr/bin/mariadb "$@"
    """
    host, copy = pair.copy()
    with (
        pair.there.wrapped("mariadb", script),
        pytest.raises(StepFailedError, match="measured: 1 instead of 2") as caught,
    ):
        await copy.apply(host)
    assert caught.value.step_code == "copy_differs"


CHANGED = {
    "a value": ("measured", "UPDATE measured SET value = 1.6 WHERE person = 1;"),
    "NULL instead of nothing": ("people", "UPDATE people SET name = NULL WHERE id = 3;"),
    "values that changed places in a row": ("pairs", "UPDATE pairs SET a = 'y', b = 'x';"),
    "values that run into each other": ("near", "UPDATE near SET a = 'x,y', b = '';"),
    "other rows twice": ("twins", "DELETE FROM twins WHERE id = 1; INSERT INTO twins VALUES (2), (2);"),
    "a row more": ("empty", "INSERT INTO empty VALUES (1);"),
    "a table less": ("less", "DROP TABLE less;"),
    "a table more": ("more", "CREATE TABLE more (id int);"),
}


@pytest.mark.full
async def test_every_difference_is_noticed(pair: Pair) -> None:
    await pair.here.ask(
        "CREATE TABLE pairs (a text, b text); INSERT INTO pairs VALUES ('x', 'y'); CREATE TABLE less (id int);"
        "CREATE TABLE near (a text, b text); INSERT INTO near VALUES ('x', 'y,');"
        "CREATE TABLE twins (id int); INSERT INTO twins VALUES (1), (1), (2), (2);"
    )
    host, copy = pair.copy()
    await carry_out(Playbook([copy, pair.verification()]), host)
    await pair.there.ask("".join(change for _, change in CHANGED.values()))
    with pytest.raises(StepFailedError, match="empty has 1 rows instead of 0") as caught:
        await pair.verification().is_satisfied(host)
    assert caught.value.step_code == "database_differs"
    sums = [
        dump.parse_checksums((await site.session().run(dump.checksums(site.spec))).text)
        for site in (pair.here, pair.there)
    ]
    differing = {name for name in {*sums[0], *sums[1]} if sums[0].get(name) != sums[1].get(name)}
    assert {name.removeprefix("public.") for name in differing} == {name for name, _ in CHANGED.values()}


KINDS = """
CREATE TABLE kinds (id int PRIMARY KEY, f float, d double, n decimal(20, 10), b bit(5), g geometry, e enum('', 'б'),
    s set('a', 'b'), j json, u uuid, i inet6, y year, at datetime(6), ts timestamp(6) NULL, t time(3),
    z int(8) zerofill, c char(10), vb varbinary(30), lb longblob, l varchar(20) CHARACTER SET latin1,
    hidden int INVISIBLE DEFAULT 7, virtually int AS (id * 2) VIRTUAL, stored int AS (id * 3) STORED,
    now_ datetime AS (NOW()) VIRTUAL, `a?``b,` text);
INSERT INTO kinds (id) VALUES (1);
INSERT INTO kinds (id, f, d, n, b, g, e, s, j, u, i, y, at, ts, t, z, c, vb, lb, l, `a?``b,`) VALUES
    (2, 1.5, 0.1e0 + 0.2e0, 1.5, b'10101', ST_GeomFromText('POINT(1 2)', 4326), 'б', 'a,b', '{"a": 1}', UUID(), '::1',
     2026, '2026-01-01 01:02:03.000004', '2026-01-01 01:02:03.000004', '10:11:12.123', 7, 'x ', X'00ff',
     REPEAT(X'00ff', 6000000), 'é', 'x');
CREATE TABLE `Case` (id int); INSERT INTO `Case` VALUES (1); CREATE TABLE `case` (id int);
"""


@pytest.mark.parametrize("pair", [DatabaseEngine.MARIADB], indirect=True)
async def test_every_kind_of_column_counts(pair: Pair) -> None:
    await pair.here.ask("SET NAMES utf8mb4;" + KINDS)
    host, copy = pair.copy()
    await carry_out(Playbook([copy, pair.verification()]), host)
    seen = set()
    for column in ["id", *"fdnbgesjuiytzcl", "at", "ts", "vb", "lb", "hidden", "`a?``b,`"]:
        value = "2" if column == "id" else "NULL"
        await pair.there.ask(f"UPDATE kinds SET {column} = {value} WHERE id = 2;")
        tables = dump.parse_checksums((await pair.there.session().run(dump.checksums(pair.there.spec))).text)
        assert tables["kinds"] not in seen, column
        seen.add(tables["kinds"])
    assert (tables["Case"][0], tables["case"][0]) == (1, 0)
