"""A client's data is dumped and put back, on a practice server and on a host that keeps no state."""

from __future__ import annotations

import asyncio
import uuid
from itertools import count
from pathlib import Path

import pytest

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings, EnsureDatabase, EnsureFolder
from alfa_cloud.playbooks.steps.data import (
    CheckDumpSpace,
    EnsureDump,
    RemoveDump,
    RestoreDump,
    differences,
    read_manifest,
    restore,
    table_counts,
)
from alfa_cloud.remote import dump, files, postgresql, requirements
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import ClientSpec, Layout
from tests.fakes import FakeHost
from tests.playbooks.conftest import Lines, Site, carry_out
from tests.playbooks.specs import PASSWORD, make_spec

NUMBERS = count(101)
COUNTS = {
    "public.cloud_settings": 1,
    "public.measured": 2,
    "public.people": 3,
    "public.empty": 0,
    'public.\\! touch "C" ': 1,
    "public.two\nlines; COPY x (a) FROM stdin;": 2,
    "Other.part_1": 4,
}

CONTENT = r"""
CREATE TABLE people (id int PRIMARY KEY, name text, photo bytea, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO people VALUES (1, E'Ёж 😀\n\\.\nCOPY people (id) FROM stdin;', '\x00ff5c2e0a'),
    (2, NULL, NULL), (3, '', '');
CREATE TABLE measured (person int REFERENCES people, value numeric CHECK (value > 0));
INSERT INTO measured VALUES (1, 1.5), (2, 0.25);
CREATE TABLE empty ();
CREATE TABLE "\! touch ""C"" " (id serial);
INSERT INTO "\! touch ""C"" " DEFAULT VALUES;
CREATE TABLE "two
lines; COPY x (a) FROM stdin;" (id int, "b
c" int);
INSERT INTO "two
lines; COPY x (a) FROM stdin;" VALUES (1, 2), (2, 3);
CREATE SCHEMA "Other";
CREATE TABLE "Other".whole (id int, at date) PARTITION BY RANGE (id);
CREATE TABLE "Other".part_1 PARTITION OF "Other".whole FOR VALUES FROM (0) TO (10);
INSERT INTO "Other".whole SELECT g, '2026-01-01' FROM generate_series(1, 4) g;
CREATE VIEW named AS SELECT id FROM people WHERE name IS NOT NULL;
CREATE MATERIALIZED VIEW sums AS SELECT sum(value) FROM measured;
CREATE TYPE colour AS ENUM ('red', 'green');
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $f$;
CREATE TRIGGER loud BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION shout();
SELECT lo_from_bytea(0, '\x0102');
"""
SPOIL = """
DROP VIEW named; DROP TABLE measured CASCADE; TRUNCATE people; DROP TYPE colour;
CREATE TABLE later (id int); CREATE SCHEMA after; CREATE TABLE after.later (id int);
CREATE VIEW people_of AS SELECT * FROM people;
SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
"""
LOOK = """
SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM people t;
SELECT md5(string_agg(t::text, '|' ORDER BY person)) FROM measured t;
SELECT id FROM named ORDER BY 1; SELECT * FROM sums; SELECT 'red'::colour;
SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1;
SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1;
SELECT relname, relkind FROM pg_class WHERE relnamespace IN ('public'::regnamespace, '"Other"'::regnamespace)
 ORDER BY 1;
SELECT md5(lo_get(oid)::text) FROM pg_largeobject_metadata;
SELECT conname FROM pg_constraint WHERE contype IN ('f', 'p') ORDER BY 1;
SELECT pg_get_userbyid(datdba), has_database_privilege('public', oid, 'CONNECT')
  FROM pg_database WHERE datname = current_database();
"""


async def a_client(site: Site, lines: Lines, content: str = CONTENT) -> tuple[ClientSpec, SshHost]:
    """A client of the practice server with a database that holds something."""
    number = next(NUMBERS)
    spec = make_spec(id=number, uid=str(uuid.uuid4()), layout=site.practice.layout)
    host = site.host(lines, f"make-{number}")
    settings = EnsureCloudSettings(spec, PASSWORD, (("a", "b"),))
    await carry_out(Playbook([EnsureFolder(spec), EnsureDatabase(spec, PASSWORD), settings]), host)
    await host.run(postgresql.psql_as_client(spec, content))
    return spec, host


async def ask(host: SshHost, spec: ClientSpec, sql: str) -> str:
    """What the client's database says to the client."""
    return (await host.run(postgresql.psql_as_client(spec, sql))).text


async def test_a_dump_is_put_back_as_it_was(site: Site, lines: Lines) -> None:
    spec, host = await a_client(site, lines)
    before = await ask(host, spec, LOOK)
    dumping = Playbook([CheckDumpSpace(spec, "migrate-1", 0), EnsureDump(spec, "migrate-1", "migrate", frozen=True)])
    assert await carry_out(dumping, host) == ["EnsureDump"]
    assert await carry_out(dumping, host) == []
    manifest = await read_manifest(host, spec, "migrate-1")
    assert manifest is not None
    assert manifest.tables == COUNTS == await table_counts(host, spec)
    folder = Path(dump.folder(spec))
    assert folder.stat().st_mode & 0o777 == 0o700
    lying = sorted(folder.iterdir())
    assert [(path.name, path.stat().st_mode & 0o777) for path in lying] == [
        ("migrate-1", 0o600), ("migrate-1.json", 0o600),
    ]  # fmt: skip
    await ask(host, spec, SPOIL)
    assert await table_counts(host, spec) != COUNTS
    restoring = Playbook([RestoreDump(spec, "migrate-1")])
    assert await carry_out(restoring, host) == ["RestoreDump"]
    assert await ask(host, spec, LOOK) == before
    assert await table_counts(host, spec) == COUNTS
    await ask(host, spec, "INSERT INTO measured VALUES (1, 9);")
    assert await carry_out(restoring, host) == []
    assert (await table_counts(host, spec))["public.measured"] == 3
    await restore(site.host(lines, f"again-{spec.id}"), spec, "migrate-1")
    assert await ask(host, spec, LOOK) == before
    assert await carry_out(Playbook([RemoveDump(spec, "migrate-1")]), host) == ["RemoveDump"]
    assert await carry_out(Playbook([RemoveDump(spec, "migrate-1")]), host) == []
    assert not folder.exists()
    assert await carry_out(dumping, host) == []
    assert not await dumping.steps[1].is_satisfied(site.host(lines, f"other-{spec.id}"))
    assert PASSWORD.reveal() not in "\n".join([*lines.texts, *lines.notes, *[c.line for c in site.practice.commands()]])
    assert not list(site.root.rglob("C"))


async def test_a_dump_that_fails_leaves_nothing(site: Site, lines: Lines) -> None:
    spec, host = await a_client(site, lines)
    site.practice.fault("^pg_dump", "fail", phase="after", stderr="out of luck", exit_status=3)
    try:
        with pytest.raises(CommandFailedError, match="could not be dumped: out of luck"):
            await EnsureDump(spec, "migrate-1", "migrate").apply(host)
    finally:
        site.practice.clear_faults()
    assert list(Path(dump.folder(spec)).iterdir()) == []
    with pytest.raises(StepFailedError) as caught:
        await restore(host, spec, "migrate-1")
    assert caught.value.step_code == "dump_missing"


async def test_a_dump_that_is_taken_back_ends_and_leaves_nothing(site: Site, lines: Lines) -> None:
    spec, host = await a_client(site, lines)
    site.practice.fault("^pg_dump", "hang")
    step = EnsureDump(spec, "migrate-1", "migrate")
    try:
        applying = asyncio.create_task(step.apply(host))
        while await RemoveDump(spec, "migrate-1").is_satisfied(host):
            pass
        await step.undo(host)
        with pytest.raises(CommandFailedError):
            await applying
    finally:
        site.practice.clear_faults()
    assert list(Path(dump.folder(spec)).iterdir()) == []


async def test_a_dump_outlives_its_connection(site: Site, lines: Lines) -> None:
    spec, host = await a_client(site, lines)
    site.practice.forget_commands()
    site.practice.fault("^pg_dump", "kill_connection", phase="during")
    try:
        await carry_out(Playbook([EnsureDump(spec, "migrate-1", "migrate", frozen=True)]), host)
    finally:
        site.practice.clear_faults()
    assert len(site.practice.commands("pg_dump", kind="stand_in")) == 1


async def test_a_restore_that_failed_is_tried_by_the_next_operation(site: Site, lines: Lines) -> None:
    spec, host = await a_client(site, lines)
    before = await ask(host, spec, LOOK)
    await carry_out(Playbook([EnsureDump(spec, "migrate-1", "migrate")]), host)
    await ask(host, spec, SPOIL)
    site.practice.fault("^pg_restore.*--exit-on-error", "fail", phase="after", stderr="killed in the end")
    with pytest.raises(CommandFailedError, match="could not be restored: killed in the end"):
        await restore(host, spec, "migrate-1")
    site.practice.clear_faults()
    await restore(site.host(lines, f"next-{spec.id}"), spec, "migrate-1")
    assert await ask(host, spec, LOOK) == before


async def test_a_database_that_is_not_the_clients_or_that_it_cannot_fill_is_left_alone(
    site: Site, lines: Lines
) -> None:
    spec, host = await a_client(site, lines)
    await carry_out(Playbook([EnsureDump(spec, "migrate-1", "migrate")]), host)
    before = await ask(host, spec, LOOK)
    login = Path(postgresql.login_path(spec))
    login.rename(login.with_suffix(".away"))
    with pytest.raises(CommandFailedError, match="cannot be read"):
        await restore(host, spec, "migrate-1")
    login.with_suffix(".away").rename(login)
    await host.run(postgresql.psql(f"COMMENT ON ROLE {spec.database_user} IS 'somebody';"))
    with pytest.raises(StepFailedError) as caught:
        await restore(host, spec, "migrate-1")
    assert caught.value.step_code == "not_ours"
    assert await ask(host, spec, LOOK) == before


async def test_rows_that_came_after_the_page_are_noticed(site: Site, lines: Lines) -> None:
    spec, host = await a_client(site, lines)
    step = EnsureDump(spec, "migrate-1", "migrate", frozen=True)
    await host.run(files.ensure_folder(dump.folder(spec), mode="0700"))
    await host.run(dump.write(spec, "migrate-1"))
    await ask(host, spec, "INSERT INTO measured VALUES (1, 9);")
    with pytest.raises(StepFailedError, match=r"public\.measured: 2 instead of 3") as caught:
        await step.apply(host)
    assert caught.value.step_code == "dump_differs"
    assert not await step.is_satisfied(host)
    await carry_out(Playbook([EnsureDump(spec, "migrate-1", "migrate")]), host)


async def test_a_database_without_tables_is_dumped_too(site: Site, lines: Lines) -> None:
    spec, host = await a_client(site, lines, "DROP TABLE cloud_settings;")
    await carry_out(Playbook([EnsureDump(spec, "empty", "back-up", frozen=True)]), host)
    await ask(host, spec, "CREATE TABLE later (id int);")
    await restore(host, spec, "empty")
    assert await table_counts(host, spec) == {}


@pytest.mark.parametrize(("free", "fits"), [(2_200_000_500, True), (2_200_000_499, False)])
async def test_a_dump_needs_room(free: int, fits: bool) -> None:
    spec = make_spec(layout=Layout())

    def answer(command: Command) -> Result:
        asked = command == requirements.free_space(spec.layout.root)
        return Result(0, f"Avail\n{free}\n".encode() if asked else b"1000000000\n")

    check = CheckDumpSpace(spec, "migrate-1", 500)
    if fits:
        assert await check.is_satisfied(FakeHost(answer))
        assert await check.is_satisfied(FakeHost(lambda command: Result(command.argv[0] == "sh")))  # begun
    else:
        with pytest.raises(StepFailedError, match="make room") as caught:
            await check.is_satisfied(FakeHost(answer))
        assert caught.value.step_code == "disk_full"


def test_differences_are_few_words() -> None:
    assert differences({"a": 1}, {"a": 1}) == ""
    assert (
        differences({"a": 1, "b": 2}, {"b": 3, "c": 0})
        == "a: none instead of 1; b: 3 instead of 2; c: 0 instead of none"
    )
    assert differences({f"t{n}": n for n in range(7)}, {}).endswith("t4: none instead of 4; and 2 more")
