"""The lab: two real hosts, one with each database system, and the service that runs clients on them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alfa_cloud.sandbox.stores import EmbeddedPostgres, EmbeddedRedis
from tests.lab import pebble
from tests.lab.hosts import LabHost, lab_available, start_lab
from tests.lab.repository import LabRepository, make_repository
from tests.system import System, free_port

ENGINES = ("mariadb", "postgresql")
ON_MARIADB = (ENGINES[0], pytest.param(ENGINES[1], marks=pytest.mark.full))
ON_POSTGRESQL = (pytest.param(ENGINES[0], marks=pytest.mark.full), ENGINES[1])
"""The small suite runs most of its tests on one system, the whole suite all of them on both."""

# Takes away all that earlier runs left, and nothing of the host's own. A build that finds its result among nameless
# images takes that: it looks as old as that is.
CLEAN = r"""
docker ps -aq --filter name=^alfa- | xargs -r docker rm -f
docker network rm alfa
docker image ls --format '{{.Repository}}:{{.Tag}}' --filter 'reference=alfa*' |
  grep -vxE 'alfa:(1\.0\.0-master|1\.1\.0-dev|8\.8\.8-badmigrate|9\.9\.9-broken)' | xargs -r docker image rm -f
docker image prune --force
rm -rf /srv/alfa /etc/nginx/conf.d/alfa-* /etc/letsencrypt/{accounts,archive,live,renewal}
for name in $(mariadb -BNe "select schema_name from information_schema.schemata where schema_name like 'alfa\_%'"); do
  mariadb -e "drop database $name"
done
mariadb -BNe "select concat('drop user ', quote(user), '@', quote(host), ';') from mysql.user
  where user like 'alfa\_%'" | mariadb
cd /
pg() { runuser -u postgres -- psql -qAtc "$1"; }
for name in $(pg "select datname from pg_database where datname like 'alfa\_%'"); do
  pg "drop database $name with (force)"
done
for name in $(pg "select rolname from pg_roles where rolname ~ '^alfa_[0-9]+$'"); do
  pg "drop role $name"
done
nginx -s reload
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the lab out where it cannot run, and say why; `ALFA_LAB` makes it required."""
    wanted = os.environ.get("ALFA_LAB", "")
    reason = None if wanted else lab_available()
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.lab)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"the lab was left out: {reason}"))


@dataclass(frozen=True, slots=True)
class Lab:
    """The running service, its hosts, and the ids of their servers by database system."""

    system: System
    hosts: dict[str, LabHost]
    servers: dict[str, str]
    smtp_port: int
    """Where letters are handed over; nobody listens there but in the tests of letters."""


@pytest.fixture(scope="session")
def hosts() -> dict[str, LabHost]:
    """One host for each database system, as it was when new; each process of the run has its own."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    found = dict(zip(ENGINES, start_lab(len(ENGINES), 1 + process * len(ENGINES)), strict=True))
    for host in found.values():
        host.exec(["bash", "-c", CLEAN])
    return found


@pytest.fixture(scope="session")
def source(hosts: dict[str, LabHost], tmp_path_factory: pytest.TempPathFactory) -> LabRepository:
    """The repository that images are built from, on the first host."""
    return make_repository(hosts[ENGINES[0]], tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
async def lab(
    hosts: dict[str, LabHost],
    source: LabRepository,
    postgres: EmbeddedPostgres,
    redis_store: EmbeddedRedis,
    template: str,
    secret_key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Lab]:
    """The service with two workers, both hosts registered."""
    smtp_port = free_port()
    postgres.create_database("lab", template=template)
    redis_store.flush()
    system = System(
        tmp_path_factory.mktemp("lab"),
        database_url=postgres.url_for("lab"),
        redis_url=redis_store.url,
        secret_key=secret_key,
        settings={
            "ALFA_APP__HEALTH_DEADLINE_S": "15",
            "ALFA_CERTBOT_SERVER": pebble.DIRECTORY,
            "ALFA_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}",
            "ALFA_MAIL_FROM": "Облако Альфа <cloud@example.org>",
            **source.settings,
        },
    )
    async with system:
        system.start_worker()
        system.start_worker()
        key = (await system.http.get("/ssh_public_key", headers={"Accept": "text/plain"})).text
        next(iter(hosts.values())).authorize(key)
        servers = {}
        for engine, host in hosts.items():
            servers[engine] = await system.register(
                name=host.name, host=host.address, database_engine=engine, base_domain="lab.test", tls="none"
            )
        yield Lab(system, hosts, servers, smtp_port)
