"""Playbooks of clients on a practice server: from nothing, again, and beside what belongs to others."""

from __future__ import annotations

import asyncio
import socket
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from alfa_cloud.errors import CommandFailedError, StepFailedError
from alfa_cloud.playbooks.create_client import create_client, update_client
from alfa_cloud.playbooks.delete_client import delete_unborn_client
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.client import EnsureCloudSettings, EnsureContainer, EnsureDatabase, EnsureFolder
from alfa_cloud.playbooks.steps.ownership import has_tenant
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.playbooks.steps.server import CheckPlace
from alfa_cloud.playbooks.steps.web import EnsureCertificate, EnsureVirtualHost
from alfa_cloud.remote import certbot, docker, files, postgresql
from alfa_cloud.remote.session import SshHost
from alfa_cloud.specs import ClientSpec, Secret, Tls
from tests.playbooks.conftest import Lines, Site, carry_out
from tests.playbooks.specs import PASSWORD, make_secrets, make_spec

NUMBERS = count(1)
OTHER_UID = "e4c1fd0c-77a6-4a83-9c5e-0f1f7a2a9b11"
SETTINGS: tuple[tuple[str, str | None], ...] = (("blocked", "0"), ("expire_date", None), ("title", "Ёж '\"\\ $x"))


def a_client(site: Site, **values: Any) -> ClientSpec:
    """A client of the practice server."""
    number = next(NUMBERS)
    layout = site.practice.layout
    return make_spec(id=number, layout=layout, port=layout.first_port + number, **values)


def creation(spec: ClientSpec) -> Playbook:
    """Its creation."""
    return create_client(spec, make_secrets(), SETTINGS, min_free_bytes=0, certbot_email="", certbot_server="")


def update(spec: ClientSpec) -> Playbook:
    """Its update."""
    return update_client(RollOut(spec, spec, make_secrets()), SETTINGS, SETTINGS, certbot_email="", certbot_server="")


def paths(spec: ClientSpec) -> list[Path]:
    """What of a client lies in folders."""
    return [
        Path(spec.directory),
        Path(spec.layout.vhost_path(spec.name)),
        Path(spec.layout.certificates_dir, spec.domain),
    ]


async def undo(playbook: Playbook, host: SshHost) -> None:
    """Take a playbook back, last step first."""
    for step in reversed(playbook.steps):
        await step.undo(host)


@pytest.mark.parametrize("tls", list(Tls))
async def test_a_client_comes_stays_and_goes(site: Site, lines: Lines, tls: Tls) -> None:
    spec = a_client(site, tls=tls)
    host = site.host(lines, f"create-{spec.id}")
    applied = await carry_out(creation(spec), host)
    secure = ["EnsureCertificate", "EnsureVirtualHost"] if tls is Tls.CERTBOT else []
    assert [name for name in applied if not name.startswith("Wait")] == [
        "EnsureFolder", "EnsureDatabase", "EnsureComposeFile", "EnsureContainer", "Migrate", "SetOwner",
        "EnsureCloudSettings", "EnsureVirtualHost", *secure,
    ]  # fmt: skip
    assert await carry_out(creation(spec), host) == []
    assert await carry_out(update(spec), site.host(lines, f"update-{spec.id}")) == []
    assert [path.exists() for path in paths(spec)] == [True, True, tls is Tls.CERTBOT]
    assert PASSWORD.reveal() not in "\n".join(lines.texts + [one.line for one in site.practice.commands()])
    deletion = site.host(lines, f"delete-{spec.id}")
    await carry_out(delete_unborn_client(spec, make_secrets()), deletion)
    assert await carry_out(delete_unborn_client(spec, make_secrets()), deletion) == []
    assert not any(path.exists() for path in paths(spec))
    assert not Path(certbot.mark_path(spec)).exists()
    assert lines.warnings == []


async def test_what_is_foreign_is_neither_taken_nor_removed(site: Site, lines: Lines) -> None:
    """Another installation's client bears the same names: its creation fails, and undo and deletion spare it."""
    theirs = a_client(site)
    await carry_out(creation(theirs), site.host(lines, "theirs"))
    ours = make_spec(id=theirs.id, layout=theirs.layout, port=theirs.port, uid=OTHER_UID)
    host = site.host(lines, "ours")
    steps = [
        CheckPlace(ours, 0),
        EnsureFolder(ours),
        EnsureDatabase(ours, PASSWORD),
        EnsureContainer(ours, "label"),
    ]
    for step in steps:
        with pytest.raises(StepFailedError) as caught:
            await step.is_satisfied(host)
        assert caught.value.step_code == "not_ours"
    for applied in (EnsureContainer(ours, "label"), EnsureVirtualHost(ours)):
        with pytest.raises(StepFailedError, match="not this client's"):
            await applied.apply(host)
    with pytest.raises(StepFailedError, match="not this client's"):
        await update(ours).steps[0].is_satisfied(host)
    await undo(creation(ours), host)
    assert await carry_out(delete_unborn_client(ours, make_secrets()), host) == []
    assert len([note for note in lines.notes if "left alone" in note]) >= 8
    assert lines.warnings == []
    assert await carry_out(update(theirs), site.host(lines, "theirs-2")) == []
    await carry_out(delete_unborn_client(theirs, make_secrets()), site.host(lines, "theirs-3"))


@pytest.mark.parametrize("gone", ["folder", "vhost"])
async def test_one_foreign_part_is_left_and_ours_go(site: Site, lines: Lines, gone: str) -> None:
    spec = a_client(site)
    host = site.host(lines, f"part-{spec.id}")
    await carry_out(creation(spec), host)
    vhost, mark = Path(spec.layout.vhost_path(spec.name)), Path(spec.directory, files.MARK)
    foreign = vhost if gone == "vhost" else mark
    foreign.write_text("# somebody else's\n")
    with pytest.raises(StepFailedError, match="is not this client's"):
        await CheckPlace(spec, 0).is_satisfied(host)
    await carry_out(delete_unborn_client(spec, make_secrets()), host)
    assert vhost.exists() is (gone == "vhost")
    assert mark.exists() is (gone == "folder")
    assert not (await host.run(docker.inspect_container(spec.container), check=False)).ok
    assert not await has_tenant(host, spec)
    foreign.unlink()


async def test_a_port_that_something_else_listens_on_is_refused(site: Site, lines: Lines) -> None:
    spec = a_client(site)
    with socket.socket() as other:
        other.bind(("127.0.0.1", spec.port))
        other.listen()
        with pytest.raises(StepFailedError) as caught:
            await CheckPlace(spec, 0).is_satisfied(site.host(lines, "port"))
        assert caught.value.step_code == "port_in_use"


async def test_a_certificate_outlives_an_undo_and_a_foreign_one_a_deletion(site: Site, lines: Lines) -> None:
    spec = a_client(site, tls=Tls.CERTBOT)
    host = site.host(lines, "certificate")
    await carry_out(creation(spec), host)
    await undo(creation(spec), host)
    assert [path.exists() for path in paths(spec)] == [False, False, True]
    Path(certbot.mark_path(spec)).unlink()
    assert await carry_out(delete_unborn_client(spec, make_secrets()), host) == []
    assert paths(spec)[2].exists()


async def test_a_certificate_that_cannot_be_had_is_one_warning(site: Site, lines: Lines) -> None:
    spec = a_client(site, tls=Tls.CERTBOT)
    site.practice.fault("^certbot certonly", "fail", stderr="DNS problem: NXDOMAIN")
    host = site.host(lines, "no-certificate")
    try:
        await carry_out(Playbook([EnsureCertificate(spec, "", "")]), host)
    finally:
        site.practice.clear_faults()
    assert len(lines.warnings) == 1
    assert "NXDOMAIN" in lines.warnings[0]
    assert "updating the client" in lines.warnings[0]


HOSTILE = """
CREATE FUNCTION evil(out name varchar, out value text) RETURNS SETOF record LANGUAGE plpgsql AS $f$
BEGIN
  EXECUTE 'CREATE TABLE IF NOT EXISTS seen (who text, super text)';
  INSERT INTO seen VALUES (session_user, current_setting('is_superuser'));
  BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN EXECUTE 'ALTER ROLE ' || quote_ident(session_user) || ' SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
END $f$;
CREATE FUNCTION evil_write() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN PERFORM evil(); RETURN NEW; END $f$;
"""
AS_VIEW = """ALTER TABLE cloud_settings RENAME TO former; CREATE VIEW cloud_settings AS SELECT name, value FROM evil();
CREATE TRIGGER t INSTEAD OF INSERT ON cloud_settings FOR EACH ROW EXECUTE FUNCTION evil_write();"""
AS_TRIGGER = """CREATE TRIGGER t BEFORE INSERT OR UPDATE ON cloud_settings FOR EACH ROW EXECUTE FUNCTION evil_write();
UPDATE cloud_settings SET value = 'forged';"""


@pytest.mark.parametrize("trap", [AS_VIEW, AS_TRIGGER])
async def test_a_client_that_sets_traps_gains_nothing(site: Site, lines: Lines, trap: str) -> None:
    spec = a_client(site)
    host = site.host(lines, f"hostile-{spec.id}")
    await carry_out(creation(spec), host)
    await host.run(postgresql.psql_as_client(spec, HOSTILE + trap))
    step = EnsureCloudSettings(spec, PASSWORD, SETTINGS)
    assert not await step.is_satisfied(host)
    if trap == AS_TRIGGER:
        await step.apply(host)
    else:
        with pytest.raises(CommandFailedError):
            await step.apply(host)
    await step.is_satisfied(host)
    await host.run(postgresql.psql_as_client(spec, "SELECT evil();"))
    seen = await host.run(postgresql.psql_as_client(spec, "SELECT DISTINCT who || ' ' || super FROM seen;"))
    assert seen.text.split("\n") == [f"{spec.database_user} off", ""]
    rights = f"SELECT rolsuper FROM pg_roles WHERE rolname = '{spec.database_user}';"
    assert (await host.run(postgresql.psql(rights))).text.strip() == "f"
    await carry_out(delete_unborn_client(spec, make_secrets()), host)


async def test_a_login_that_fails_is_an_error_and_a_missing_table_none(site: Site, lines: Lines) -> None:
    spec = a_client(site)
    host = site.host(lines, "login")
    await carry_out(Playbook([EnsureFolder(spec), EnsureDatabase(spec, PASSWORD)]), host)
    step = EnsureCloudSettings(spec, PASSWORD, SETTINGS)
    assert not await step.is_satisfied(host)
    await host.run(files.write_file(*step._login(), mode="0600"))
    assert not await step.is_satisfied(host)
    wrong = EnsureCloudSettings(spec, Secret("wrong-password"), SETTINGS)
    await host.run(files.write_file(*wrong._login(), mode="0600"))
    with pytest.raises(CommandFailedError, match=r"cannot use its database.*password authentication failed"):
        await wrong.is_satisfied(host)
    assert await carry_out(Playbook([step]), host) == ["EnsureCloudSettings"]


async def test_a_database_that_is_made_twice_at_once_is_made_once(site: Site, lines: Lines) -> None:
    """A step is begun again while what a lost connection left still runs."""
    spec = a_client(site)
    steps = [EnsureDatabase(spec, PASSWORD) for _ in range(4)]
    await asyncio.gather(*(step.apply(site.host(lines, f"twice-{n}")) for n, step in enumerate(steps)))
    assert await steps[0].is_satisfied(site.host(lines, "twice"))
    await asyncio.gather(*(step.undo(site.host(lines, f"twice-{n}")) for n, step in enumerate(steps)))
    assert not await steps[0].is_satisfied(site.host(lines, "twice"))


async def test_a_database_that_was_left_open_is_closed(site: Site, lines: Lines) -> None:
    """As a stop between CREATE DATABASE and REVOKE leaves it."""
    spec = a_client(site)
    host = site.host(lines, "open")
    step = EnsureDatabase(spec, PASSWORD)
    await carry_out(Playbook([step]), host)
    await host.run(postgresql.psql(f"GRANT CONNECT ON DATABASE {spec.database} TO PUBLIC;"))
    assert not await step.is_satisfied(host)
    assert await carry_out(Playbook([step]), host) == ["EnsureDatabase"]


async def test_a_broken_neighbour_is_named_and_nothing_changed(site: Site, lines: Lines) -> None:
    spec = a_client(site)
    host = site.host(lines, "neighbour")
    await carry_out(creation(spec), host)
    neighbour = Path(spec.layout.nginx_dir, "neighbour.conf")
    neighbour.write_text("server {")
    vhost = Path(spec.layout.vhost_path(spec.name))
    try:
        with pytest.raises(StepFailedError, match=r"neighbour\.conf") as caught:
            await EnsureVirtualHost(spec).undo(host)
    finally:
        neighbour.unlink()
    assert caught.value.step_code == "nginx_broken_before"
    assert vhost.exists()
    await EnsureVirtualHost(spec).undo(host)
    assert not vhost.exists()
