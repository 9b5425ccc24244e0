"""Changes of a client on a practice server: its page, its domain, its container; and a client that resists."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from alfa_cloud.playbooks.client_commands import change_page, reboot_client
from alfa_cloud.playbooks.create_client import create_client, update_client
from alfa_cloud.playbooks.delete_client import RemoveVirtualHost, delete_unborn_client
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.rollout import RollOut
from alfa_cloud.playbooks.steps.web import RemovePage
from alfa_cloud.remote import certbot, compose, docker, pages, postgresql
from alfa_cloud.specs import ClientSpec, CloudSettings, PageKind, Slot, Tls
from tests.playbooks.conftest import carry_out
from tests.playbooks.specs import make_secrets
from tests.playbooks.test_rollout import OLD, Client, client
from tests.playbooks.test_rollout_failures import undo_all

__all__ = ["client"]

AS_VIEW = """DROP TABLE cloud_settings;
CREATE VIEW cloud_settings AS SELECT 'blocked'::varchar AS name, '0'::text AS value;"""
SWALLOW = """CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NULL; END $f$;
CREATE TRIGGER t BEFORE INSERT OR UPDATE ON cloud_settings FOR EACH ROW EXECUTE FUNCTION swallow();"""
BLOCKED: CloudSettings = tuple((name, "1" if name == "blocked" else value) for name, value in OLD)


@pytest.mark.parametrize("trap", [AS_VIEW, SWALLOW, "no login"])
async def test_a_client_that_resists_is_blocked_all_the_same(client: Client, trap: str) -> None:
    """Its page comes, and goes, whatever it did to its database; what could not be written is a warning."""
    admin = client.host()
    if trap == "no login":
        await admin.run(postgresql.psql(f"ALTER ROLE {client.spec.database_user} NOLOGIN;"))
    else:
        await admin.run(postgresql.psql_as_client(client.spec, trap))
    after = replace(client.spec, page=PageKind.EXPIRED)
    await carry_out(change_page(client.spec, after, make_secrets(), OLD, BLOCKED), client.host())
    assert await client.visit() == 503
    assert [warning[:40] for warning in client.lines.warnings] == ["The settings in the client's database co"]
    await carry_out(change_page(after, client.spec, make_secrets(), BLOCKED, OLD), client.host())
    assert await client.visit() == 200


async def test_settings_that_can_be_written_are(client: Client) -> None:
    after = replace(client.spec, page=PageKind.EXPIRED)
    playbook, host = change_page(client.spec, after, make_secrets(), OLD, BLOCKED), client.host()
    assert "TryCloudSettings" in await carry_out(playbook, host)
    asked = await host.run(postgresql.psql_as_client(client.spec, "SELECT * FROM cloud_settings ORDER BY 1;"))
    assert asked.text.split() == ["blocked|1", "version|1.0.0-master"]
    assert await undo_all(playbook.steps, host) == []
    asked = await host.run(postgresql.psql_as_client(client.spec, "SELECT * FROM cloud_settings ORDER BY 1;"))
    assert asked.text.split() == ["blocked|0", "version|1.0.0-master"]
    assert client.lines.warnings == []


async def test_a_page_that_goes_is_not_taken_back(client: Client) -> None:
    """nginx serves the client by then: what is left is to remove a file."""
    before = replace(client.spec, page=PageKind.EXPIRED)
    playbook = change_page(before, client.spec, make_secrets(), BLOCKED, OLD)
    assert playbook.no_return == next(n for n, step in enumerate(playbook.steps) if isinstance(step, RemovePage))


async def test_a_deletion_removes_the_page_of_one_that_was_cut_off(client: Client) -> None:
    """Between the virtual host and the page."""
    path = Path(pages.client_path(client.spec))
    await carry_out(Playbook([RemoveVirtualHost(client.spec)]), client.host())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert await carry_out(Playbook([RemoveVirtualHost(client.spec)]), client.host()) == ["RemoveVirtualHost"]
    assert not path.exists()


def update(before: ClientSpec, after: ClientSpec) -> Playbook:
    """A change."""
    return update_client(RollOut(before, after, make_secrets()), OLD, OLD, certbot_email="", certbot_server="")


async def test_an_update_that_fails_leaves_the_former_domain_and_container(client: Client) -> None:
    """And a reboot after it restarts the container that is there."""
    before = await client.state()
    after = replace(client.spec, domain="new.cloud.test", url="http://new.cloud.test", memory_bytes=6 * 1024**2)
    playbook, host = update(client.spec, after), client.host()
    await carry_out(Playbook(playbook.steps[: playbook.no_return]), host)
    assert await replace(client, spec=after).visit() == 200
    assert await undo_all(playbook.steps[: playbook.no_return], host) == []
    assert await client.state() == before
    await carry_out(reboot_client(client.spec), client.host())
    assert await client.state() == before


async def test_a_reboot_restarts_whatever_is_there(client: Client) -> None:
    before = await client.state()
    changed = replace(client.spec, title="Другое имя")
    Path(compose.path(client.spec)).write_bytes(compose.render(changed, make_secrets()))
    await carry_out(reboot_client(changed), client.host())
    assert (await client.state())["a"] == before["a"]
    await client.host().run(docker.remove_container(client.spec.container))
    await carry_out(reboot_client(changed), client.host())
    found = await client.state()
    assert (found["status"], found["a"] == before["a"]) == (200, False)


async def test_a_former_domains_certificate_goes_and_others_stay(client: Client) -> None:
    """A changed domain leaves neither its certificate nor its mark; another client's and an administrator's stay."""
    first = client.spec.layout.last_port - 2 * client.spec.id
    made = replace(
        client.spec, id=client.spec.id + 500, uid=str(uuid.uuid4()), name=f"secure-{client.spec.id}", tls=Tls.CERTBOT,
        domain="first.test", url="https://first.test", port=first, spare_port=first - 1, slot=Slot.A,
        database=f"alfa_{client.spec.id + 500}", database_user=f"alfa_{client.spec.id + 500}",
    )  # fmt: skip
    creation = create_client(made, make_secrets(), OLD, min_free_bytes=0, certbot_email="", certbot_server="")
    await carry_out(creation, client.host())
    other = replace(made, uid=str(uuid.uuid4()), domain="other.test")
    for command in (*certbot.write_mark(other), certbot.obtain(other, email="", server="")):
        await client.host().run(command)
    after = replace(made, domain="second.test", url="https://second.test")
    assert (await carry_out(update(made, after), client.host()))[-1] == "RemoveCertificates"
    assert names(made) == ["other.test", "second.test"]
    await carry_out(delete_unborn_client(after, make_secrets()), client.host())
    assert names(made) == ["other.test"]


def names(spec: ClientSpec) -> list[str]:
    """The domains that have a certificate; each of them has its mark."""
    found = sorted(path.name for path in Path(spec.layout.certificates_dir).iterdir() if path.is_dir())
    assert found == sorted(path.name for path in Path(spec.layout.root, "certificates").iterdir())
    return found
