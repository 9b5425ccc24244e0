"""Roll-outs on a practice server: taken back at each step, repeated, and over what others left or changed."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import asyncssh
import httpx
import pytest

from alfa_cloud.errors import StepFailedError
from alfa_cloud.playbooks.create_client import create_client
from alfa_cloud.playbooks.migrate_client import switch_and_migrate
from alfa_cloud.playbooks.playbook import Playbook
from alfa_cloud.playbooks.steps.drift import difference
from alfa_cloud.playbooks.steps.image import EnsureImage, Source, find_image
from alfa_cloud.playbooks.steps.migration import MigrateData
from alfa_cloud.playbooks.steps.rollout import RollOut, StartBeside, beside
from alfa_cloud.playbooks.switch_client import Web, roll_out
from alfa_cloud.remote import compose, docker, dump
from alfa_cloud.remote.command import Command
from alfa_cloud.remote.pool import SshPool
from alfa_cloud.remote.session import SshHost
from alfa_cloud.sandbox.practice import PracticeServer
from alfa_cloud.specs import Address, ClientSpec, CloudSettings, Secret
from tests.fixtures.cloud import FULL
from tests.fixtures.practice import NewPractice
from tests.playbooks.conftest import Lines, Site, carry_out
from tests.playbooks.specs import PASSWORD, make_secrets, make_spec

NUMBERS = count(1)
OLD: CloudSettings = (("blocked", "0"), ("version", "1.0.0-master"))
NEW: CloudSettings = (("blocked", "0"), ("version", "1.1.0-dev"))


@dataclass
class Client:
    """A client that is alive, and what is to be done with it."""

    site: Site
    spec: ClientSpec
    lines: Lines

    def rollout(self) -> RollOut:
        """To the newer image."""
        after = replace(self.spec, image="alfa:1.1.0-dev", version="1.1.0-dev")
        return RollOut(self.spec, after, make_secrets())

    def switch(self) -> Playbook:
        """A plain switch."""
        return roll_out(self.rollout(), OLD, NEW, image=EnsureImage("alfa:1.1.0-dev"))

    def switch_and_migrate(self) -> Playbook:
        """A switch with a migration."""
        image = EnsureImage("alfa:1.1.0-dev")
        return switch_and_migrate(self.rollout(), OLD, NEW, image=image, dump="before", min_free_bytes=0)

    def deploy(self) -> Playbook:
        """All that there is of it, anew."""
        rollout = RollOut(self.spec, self.spec, make_secrets())
        return roll_out(rollout, OLD, OLD, web=Web("", ""), note_drift=True)

    def host(self) -> SshHost:
        """For one operation."""
        return self.site.host(self.lines, f"rollout-{self.spec.id}-{next(NUMBERS)}")

    async def state(self) -> dict[str, object]:
        """What there is of it on the server."""
        host = self.host()
        found: dict[str, object] = {}
        for spec in (self.spec, beside(self.spec)):
            result = await host.run(docker.inspect_container(spec.container), check=False)
            found[spec.slot] = json.loads(result.text)[0]["Id"] if result.ok else None
        layout = self.spec.layout
        files = (Path(compose.path(self.spec)), Path(layout.vhost_path(self.spec.name)))
        pages = list(Path(layout.root, "pages", "clients").glob(f"{self.spec.name}*"))
        return {**found, "files": [path.read_text() for path in files], "pages": pages, "status": await self.visit()}

    async def visit(self) -> int:
        """What a visitor gets."""
        practice = self.site.practice
        async with httpx.AsyncClient(trust_env=False) as http:
            address = f"http://{practice.host}:{practice.layout.http_port}/"
            return (await http.get(address, headers={"Host": self.spec.domain})).status_code


@pytest.fixture
async def client(site: Site, lines: Lines) -> Client:
    """A client of the practice server."""
    number = next(NUMBERS)
    layout = site.practice.layout
    first = layout.first_port + 2 * number
    spec = make_spec(id=number, layout=layout, port=first, spare_port=first + 1)
    made = Client(site, spec, lines)
    creation = create_client(spec, make_secrets(), OLD, min_free_bytes=0, certbot_email="", certbot_server="")
    await carry_out(creation, made.host())
    return made


@pytest.mark.parametrize("kind", ["switch", "switch_and_migrate"])
async def test_taken_back_at_any_step_all_is_as_before(client: Client, kind: str) -> None:
    """Until its point of no return; after the last position it is carried out, and again changes nothing."""
    before = await client.state()
    last = getattr(client, kind)().no_return
    for position in range(1, last, 1 if FULL else 2 if kind == "switch" else 5):
        playbook, host = getattr(client, kind)(), client.host()
        steps = playbook.steps[: position + 1]
        await carry_out(Playbook(steps), host)
        assert await client.visit() in (200, 503)
        for step in reversed(steps):
            await step.undo(host)
        assert await client.state() == before, steps[-1]
    assert client.lines.warnings == []
    host = client.host()
    applied = await carry_out(getattr(client, kind)(), host)
    assert applied[-1] in ("EnsureOneService", "RemoveDump")
    assert client.lines.facts["slot"] == "b"
    assert await carry_out(getattr(client, kind)(), host) == []
    after = await client.state()
    assert (after["a"], after["pages"], after["status"]) == (None, [], 200)


async def test_data_that_cannot_be_brought_back_keeps_the_page(client: Client) -> None:
    playbook, host = client.switch_and_migrate(), client.host()
    position = next(n for n, step in enumerate(playbook.steps) if isinstance(step, MigrateData))
    await carry_out(Playbook(playbook.steps[: position + 1]), host)
    lying = Path(dump.path(client.spec, "before"))
    lying.write_bytes(b"x" * lying.stat().st_size)
    failed = []
    for step in reversed(playbook.steps[: position + 1]):
        try:
            await step.undo(host)
        except StepFailedError as error:
            failed.append(error.step_code)
    assert failed == ["dump_damaged", "data_not_restored"]
    assert client.lines.facts["page_shown"] is True
    assert await client.visit() == 503
    assert lying.exists()


async def test_what_was_changed_on_the_server_is_said_and_mended(client: Client) -> None:
    before = await client.state()
    file = Path(compose.path(client.spec))
    file.write_text(file.read_text().replace("pids_limit: 256", "pids_limit: 9").replace(PASSWORD.reveal(), "old-one"))
    Path(client.spec.layout.vhost_path(client.spec.name)).unlink()
    await carry_out(client.deploy(), client.host())
    assert await client.state() == before
    notes = "\n".join(client.lines.notes)
    assert "-    pids_limit: 9" in notes
    assert "is not there" in notes
    assert "old-one" not in notes
    assert PASSWORD.reveal() not in notes
    assert client.lines.facts["drift"] == ["compose.yaml", f"alfa-{client.spec.name}.conf"]
    assert difference("x", "A_KEY: 1\n", "A_KEY: 2\n") == ["x differs in a secret."]


async def test_what_an_earlier_operation_left_beside_does_not_stand_in_the_way(client: Client) -> None:
    """It was cut off, and could not take its own back; nginx may even point to what it left."""
    started = client.switch()
    await carry_out(Playbook(started.steps[: started.no_return]), client.host())
    rollout = RollOut(client.spec, replace(client.spec, title="Другое имя"), make_secrets())
    applied = await carry_out(roll_out(rollout, OLD, OLD), client.host())
    assert applied[0] == "ClearBeside"
    found = await client.state()
    assert (found["a"], found["status"], client.lines.facts["slot"]) == (None, 200, "b")


async def test_a_row_that_is_behind_is_served_from_where_it_is(client: Client) -> None:
    """The worker died after the former container went, and the row was changed before another took over."""
    await carry_out(client.switch(), client.host())
    rollout = RollOut(client.spec, replace(client.rollout().after, title="Другое имя"), make_secrets())
    await carry_out(roll_out(rollout, NEW, NEW), client.host())
    found = await client.state()
    assert (found["b"], found["status"], client.lines.facts["slot"]) == (None, 200, "a")


async def test_a_container_that_lies_down_is_replaced_like_any_other(client: Client) -> None:
    await client.host().run(docker.stop_container(client.spec.container))
    await carry_out(client.switch(), client.host())
    assert await client.visit() == 200


async def test_a_container_that_lies_down_and_is_right_is_started(client: Client) -> None:
    before = await client.state()
    await client.host().run(docker.stop_container(client.spec.container))
    assert (await carry_out(client.deploy(), client.host()))[0] == "StartBeside"
    assert await client.state() == before


async def test_requests_under_way_are_ended_before_the_former_goes(client: Client) -> None:
    playbook, host = client.switch(), client.host()
    await carry_out(Playbook(playbook.steps[: playbook.no_return]), host)
    _, writer = await asyncio.open_connection("127.0.0.1", client.spec.port)
    going = asyncio.create_task(carry_out(Playbook(playbook.steps[playbook.no_return :]), host))
    done, _ = await asyncio.wait({going}, timeout=3)
    assert not done
    writer.close()
    await going
    assert (await client.state())["a"] is None


@pytest.fixture
def other(new_practice: NewPractice, practice_key: asyncssh.SSHKey) -> Iterator[PracticeServer]:
    """Another server of the fleet."""
    with new_practice() as server:
        server.authorize(practice_key.export_public_key().decode())
        yield server


async def test_an_image_comes_from_another_server(
    site: Site, lines: Lines, other: PracticeServer, practice_key: asyncssh.SSHKey
) -> None:
    pool = SshPool(
        Secret(practice_key.export_private_key("openssh").decode()),
        allowed_networks=[ipaddress.ip_network("127.0.0.0/8")],
    )
    address = Address(2, other.host, other.port, other.username, other.host_key)
    there = Site(other, pool, address).host(lines, "source")
    here = site.host(lines, "image")
    await there.run(Command(("docker", "image", "tag", "alfa:1.1.0-dev", "alfa:2.0.0-dev"), sudo=True))
    found = await find_image(there, "alfa:2.0.0-dev")
    assert found is not None
    wrong = EnsureImage("alfa:2.0.0-dev", "sha256:" + "0" * 64, (Source("other", there),))
    with pytest.raises(StepFailedError, match="on no other of the fleet"):
        await wrong.apply(here)
    step = EnsureImage("alfa:2.0.0-dev", found[0], (Source("itself", here), Source("other", there)))
    assert await carry_out(Playbook([step]), here) == ["EnsureImage"]
    assert "is not on itself any more" in " ".join(lines.notes)
    await pool.close()


async def test_in_place_nothing_is_started(client: Client) -> None:
    rollout = RollOut(client.spec, replace(client.spec, title="Другое имя"), make_secrets(), in_place=True)
    places = await rollout.places(client.host())
    assert places.stays
    assert str(StartBeside(rollout)) == "Container from alfa:1.0.0-master"
