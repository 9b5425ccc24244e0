"""A client's database goes to another server, on a practice server and on hosts that keep no state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from alfa_cloud.errors import CommandFailedError, ConnectionLostError, StepFailedError
from alfa_cloud.playbooks.playbook import Elsewhere, Playbook
from alfa_cloud.playbooks.steps.data import table_counts
from alfa_cloud.playbooks.steps.database_copy import CheckDatabaseSpace, CopyDatabase, VerifyDatabase
from alfa_cloud.remote import dump, dump_stream, postgresql
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.host import Result
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import ClientSpec
from tests.fakes import FakeHost
from tests.playbooks.conftest import Lines, Site, carry_out
from tests.playbooks.specs import make_spec
from tests.playbooks.test_data import COUNTS, LOOK, a_client, ask

SPEC = make_spec()


async def two(site: Site, lines: Lines) -> tuple[ClientSpec, SshHost, CopyDatabase, VerifyDatabase]:
    """A client with a full database, another with one of its own, and the steps from the first to the second."""
    spec, host = await a_client(site, lines)
    target_spec, there = await a_client(site, lines, "CREATE TABLE later (id int);")
    target = Elsewhere("the other one", there)
    copy = CopyDatabase(spec, target, target_spec, f"copy-{spec.id}")
    return spec, host, copy, VerifyDatabase(spec, target, target_spec)


def left(spec: ClientSpec) -> list[str]:
    """What a copy may have left in a client's folder."""
    return [path.name for path in Path(spec.directory).iterdir() if "counted" in path.name]


async def test_a_database_arrives_as_it_was(site: Site, lines: Lines) -> None:
    spec, host, copy, verification = await two(site, lines)
    before, playbook = await ask(host, spec, LOOK), Playbook([copy, verification])
    assert await carry_out(playbook, host) == ["CopyDatabase"]
    assert (await ask(host, copy.target_spec, LOOK)).replace(copy.target_spec.database, spec.database) == before
    assert await table_counts(host, copy.target_spec) == COUNTS
    assert await carry_out(playbook, host) == []
    assert left(copy.target_spec) == []
    assert any("7 tables with 13 rows are the same on the other one" in note for note in lines.notes)
    again = CopyDatabase(spec, Elsewhere("x", site.host(lines, "another")), copy.target_spec, copy.name)
    assert not await again.is_satisfied(host)


@pytest.mark.parametrize("program", ["^pg_dump", "^pg_restore.*--exit-on-error"])
async def test_a_copy_that_was_cut_is_begun_again(site: Site, lines: Lines, program: str) -> None:
    _, host, copy, verification = await two(site, lines)
    site.practice.fault(program, "kill_connection", phase="during", times=1)
    try:
        with pytest.raises(ConnectionLostError):
            await copy.apply(host)
    finally:
        site.practice.clear_faults()
    assert not await copy.is_satisfied(host)
    assert await carry_out(Playbook([copy, verification]), host) == ["CopyDatabase"]
    assert left(copy.target_spec) == []


async def test_a_copy_that_fails_names_its_reason(site: Site, lines: Lines) -> None:
    _, host, copy, verification = await two(site, lines)
    for program in ("^pg_dump", "^pg_restore.*--exit-on-error"):
        site.practice.fault(program, "fail", phase="after", stderr="out of luck", exit_status=3)
        try:
            with pytest.raises(CommandFailedError, match="out of luck"):
                await copy.apply(host)
        finally:
            site.practice.clear_faults()
        assert not await copy.is_satisfied(host)
    assert await carry_out(Playbook([copy, verification]), host) == ["CopyDatabase"]


async def test_a_copy_that_is_taken_back_ends(site: Site, lines: Lines) -> None:
    _, host, copy, _ = await two(site, lines)
    site.practice.forget_commands()
    site.practice.fault("^pg_restore.*--exit-on-error", "hang")
    try:
        applying = asyncio.create_task(copy.apply(host))
        async with asyncio.timeout(60):
            while not any("--exit-on-error" in found.line for found in site.practice.commands("pg_restore")):
                await asyncio.sleep(0.05)
            await copy.undo(host)
            with pytest.raises((CommandFailedError, ConnectionLostError)):
                await applying
    finally:
        site.practice.clear_faults()


async def test_a_database_that_is_not_the_clients_is_left_alone(site: Site, lines: Lines) -> None:
    _, host, copy, _ = await two(site, lines)
    before = await table_counts(host, copy.target_spec)
    await host.run(postgresql.psql(f"COMMENT ON ROLE {copy.target_spec.database_user} IS 'somebody';"))
    with pytest.raises(StepFailedError) as caught:
        await copy.apply(host)
    assert caught.value.step_code == "not_ours"
    assert await table_counts(host, copy.target_spec) == before


async def test_every_difference_is_noticed(site: Site, lines: Lines) -> None:
    _, host, copy, verification = await two(site, lines)
    await carry_out(Playbook([copy, verification]), host)
    await ask(
        host,
        copy.target_spec,
        """UPDATE measured SET value = 1.6 WHERE person = 1; UPDATE people SET name = NULL WHERE id = 3;
        DELETE FROM "Other".part_1 WHERE id = 1; DROP TABLE empty; CREATE TABLE later (id int);""",
    )
    with pytest.raises(StepFailedError) as caught:
        await verification.is_satisfied(host)
    assert caught.value.step_code == "database_differs"
    assert caught.value.detail == (
        "The database on the other one is another one: Other.part_1 has 3 rows instead of 4; public.empty is missing; "
        "public.later has 0 rows instead of no; public.measured has other content in its 2 rows; "
        "public.people has other content in its 3 rows"
    )


async def test_at_most_five_tables_are_named() -> None:
    def answer(rows: int) -> FakeHost:
        lines = "".join(f"{f't{n}'.encode().hex()} {rows} 0\n" for n in range(7)).encode()
        return FakeHost(lambda command: Result(0, lines) if command == dump.checksums(SPEC) else None)

    verification = VerifyDatabase(SPEC, Elsewhere("x", answer(1)), SPEC)
    with pytest.raises(StepFailedError, match=r"t4 has 1 rows instead of 2; and 2 more$"):
        await verification.check(answer(2))
    assert await verification.is_satisfied(answer(1))


async def test_a_server_that_cannot_be_read_is_the_error() -> None:
    broken = FakeHost(lambda _: Result(1, b"", b"no such login"))
    with pytest.raises(CommandFailedError, match="no such login"):
        await VerifyDatabase(SPEC, Elsewhere("x", broken), SPEC).check(FakeHost())


async def test_rows_that_did_not_arrive_are_noticed() -> None:
    def answer(command: Command) -> Result | None:
        if command == dump.count_rows(SPEC):
            return Result(0, b"7075626c69632e61 2\n")
        if dump_stream.counted_path(SPEC) in command.argv:
            return Result(0, b"3\tCOPY public.a (id) FROM stdin;\n")
        return None

    copy = CopyDatabase(SPEC, Elsewhere("x", FakeHost(answer)), SPEC, "copy-1")
    with pytest.raises(StepFailedError, match=r"public\.a: 2 instead of 3") as caught:
        await copy._verify()
    assert caught.value.step_code == "copy_differs"


@pytest.mark.parametrize(("free", "fits"), [(2_200_000_500, True), (2_200_000_499, False)])
async def test_a_database_needs_room_there(free: int, fits: bool) -> None:
    there = FakeHost(lambda _: Result(0, f"Avail\n{free}\n".encode()))
    here = FakeHost(lambda _: Result(0, b"1000000000\n"))
    check = CheckDatabaseSpace(SPEC, Elsewhere("x", there), 500)
    if fits:
        assert await check.is_satisfied(here)
        there.answer = lambda _: Result(0, b"Avail\n1\n")
        assert await check.is_satisfied(here)  # what was copied has taken its room
    else:
        with pytest.raises(StepFailedError, match="make room there") as caught:
            await check.is_satisfied(here)
        assert caught.value.step_code == "disk_full"
