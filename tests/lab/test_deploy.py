"""A server's configuration is written anew on real hosts, and what changed is restarted while people use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.conftest import ON_MARIADB, Lab
from tests.lab.hosts import LabHost
from tests.lab.test_switch import born, containers, load, run

FILE = """FROM alfa:1.1.0-dev
LABEL org.opencontainers.image.version={version} org.opencontainers.image.revision={version} alfa.branch=dev
"""
VERSIONS = ("7.0.0-dev", "7.1.0-dev")


def build(host: LabHost, version: str) -> None:
    """The channel `dev` has a newer image on the host."""
    script = f"cd $(mktemp -d) && cat >Dockerfile && DOCKER_BUILDKIT=0 docker build -q -t alfa:{version} ."
    made = host.exec(["bash", "-c", script], stdin=FILE.format(version=version).encode())
    assert made.returncode == 0, made.stderr


@pytest.fixture
def host(lab: Lab, engine: str) -> Iterator[LabHost]:
    """A host from which the builds of a test are gone after it."""
    yield lab.hosts[engine]
    for version in VERSIONS:
        lab.hosts[engine].exec(["docker", "image", "rm", "--force", f"alfa:{version}"])


def row_of(ended: Any, name: str) -> Any:
    """What became of one client."""
    return next(row for row in ended["result"]["rows"] if row["name"] == name)


@pytest.mark.full
@pytest.mark.parametrize("engine", ON_MARIADB)
async def test_a_deploy_mends_what_was_changed_and_brings_the_newest_build(
    lab: Lab, host: LabHost, engine: str
) -> None:
    system, deploy = lab.system, f"/server/{lab.servers[engine]}/deploy"
    stays_id, stays = await born(lab, engine, "stays")
    follows_id, follows = await born(lab, engine, "follows")
    build(host, VERSIONS[0])
    await run(lab, f"/clients/{follows_id}/switch/dev", run_migrate=True)
    present = containers(host, stays["name"])
    host.exec(["sed", "-i", "s/100m/7m/", f"/etc/nginx/conf.d/alfa-{stays['name']}.conf"])
    build(host, VERSIONS[1])
    async with load(host, stays["domain"]) as one, load(host, follows["domain"]) as other:
        ended = await run(lab, deploy)
    assert (one.failed, other.failed) == (0, 0)
    assert containers(host, stays["name"]) == present
    lines = await system.log(f"/operations/{row_of(ended, stays['name'])['operation_id']}/log")
    assert any("7m" in line["text"] for line in lines), "the log says how the file differed"
    client = await system.client(follows_id)
    assert (client["version"], client["migration_pending"]) == (VERSIONS[1], True)
    assert follows["name"] in ended["result"]["migration_pending"]
    again = await run(lab, deploy, run_migrate=True)
    assert (await system.client(follows_id))["migration_pending"] is False
    assert row_of(again, stays["name"])["state"] == "ok"
    await run(lab, f"/clients/{follows_id}/switch/1.1.0-dev")
    print(f"{engine}: {ended['seconds']:.1f} s for {ended['result']['counts']['total']} targets")
    assert (await system.client(stays_id))["available"] is True
