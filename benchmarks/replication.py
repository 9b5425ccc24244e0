"""A trial: what replication would leave of a move's time without service, beside the one streamed pass of today.

It switches the log on that replication needs, and off again: each restarts the database of a host of the lab.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from tests.lab.hosts import LabHost, lab_available, start_lab
from tests.lab.test_dump import Site, a_site, spec_for

from alfa_cloud.specs import DatabaseEngine
from benchmarks.figures import Figure
from benchmarks.transfer import FILL, HOSTS, ROWS, ByHand, by_relay

WRITE_S = 20.0
"""How long the client writes while it is replicated, before the freeze."""
LOCAL_PORT, REMOTE_PORT = 23306, 13306
COPY = r"""
set -o pipefail
docker exec "$1" mariadb-dump --single-transaction --master-data=2 "$3" | tee "$4" |
  docker exec --interactive "$2" mariadb "$3"
"""
POSITION = re.compile(r"MASTER_LOG_FILE='([^']+)', MASTER_LOG_POS=(\d+)")


@dataclass(frozen=True, slots=True)
class Pair:
    """A client's database on a host, and an empty one of the same name on another."""

    here: Site
    there: Site
    folder: Path

    @property
    def name(self) -> str:
        return self.here.spec.database


class Mariadb:
    """The binary log: of all clients of the server, filtered where it is read."""

    port: ClassVar = 3306
    write: ClassVar = "INSERT INTO big (id, words) VALUES ({id}, 'Ёж 😀');\n"
    on: ClassVar = """cd /etc/mysql/mariadb.conf.d
        printf '[mysqld]\nlog_bin\nbinlog_format=ROW\nserver_id=1\n' >99-trial.cnf
        service mariadb restart"""
    off: ClassVar = (
        "rm -f /etc/mysql/mariadb.conf.d/99-trial.cnf; service mariadb restart; rm -f /var/lib/mysql/*-bin.*"
    )

    def ask(self, host: LabHost, database: str, sql: str) -> str:
        """What the administrator is told."""
        return ran(host, ["mariadb", "-BN", database], sql)

    def client(self, database: str) -> list[str]:
        """A session that takes statements."""
        return ["mariadb", "--unbuffered", database]

    def start(self, pair: Pair) -> None:
        """The first copy, and from its position on whatever follows."""
        sql = "CREATE USER trial IDENTIFIED BY 'trial'; GRANT REPLICATION SLAVE ON *.* TO trial;"
        self.ask(pair.here.host, pair.name, sql)
        self.ask(pair.there.host, pair.name, "DROP TABLE big, cloud_settings;")
        copy = pair.folder / "copy.sql"
        names = (pair.here.host.name, pair.there.host.name, pair.name, str(copy))
        subprocess.run(["bash", "-c", COPY, "copy", *names], check=True)
        with copy.open(errors="replace") as text:
            found = POSITION.search(text.read(4000))
        assert found is not None
        self.ask(
            pair.there.host,
            pair.name,
            f"""SET GLOBAL server_id = 2; SET GLOBAL replicate_do_db = '{pair.name}';
            CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={REMOTE_PORT}, MASTER_USER='trial',
              MASTER_PASSWORD='trial', MASTER_SSL_VERIFY_SERVER_CERT=0, MASTER_USE_GTID=no,
              MASTER_LOG_FILE='{found[1]}', MASTER_LOG_POS={found[2]};
            START SLAVE;""",
        )

    def behind(self, pair: Pair) -> None:
        """Return when all that is there is here, too."""
        file, position = self.ask(pair.here.host, pair.name, "SHOW MASTER STATUS;").split()[:2]
        sql = f"SELECT MASTER_POS_WAIT('{file}', {position}, 300);"
        status = self.ask(pair.there.host, pair.name, sql).strip()
        assert int(status) >= 0, self.ask(pair.there.host, pair.name, "SHOW SLAVE STATUS;")

    def stop(self, pair: Pair) -> None:
        """Nothing of it is left."""
        self.ask(pair.there.host, pair.name, "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL replicate_do_db = '';")
        self.ask(pair.here.host, pair.name, "DROP USER trial;")


class Postgresql:
    """Logical replication of one table, with its first copy."""

    port: ClassVar = 5432
    write: ClassVar = "INSERT INTO big (id, words) VALUES ({id}, 'Ёж 😀');\n"
    on: ClassVar = (
        "runuser -u postgres -- psql -qc \"ALTER SYSTEM SET wal_level = 'logical'\"; service postgresql restart"
    )
    off: ClassVar = 'runuser -u postgres -- psql -qc "ALTER SYSTEM RESET wal_level"; service postgresql restart'

    def ask(self, host: LabHost, database: str, sql: str) -> str:
        """What the administrator is told."""
        return ran(host, [*self.client(database), "-v", "ON_ERROR_STOP=1"], sql)

    def client(self, database: str) -> list[str]:
        """A session that takes statements."""
        return ["runuser", "-u", "postgres", "--", "psql", "-qAt", database]

    def start(self, pair: Pair) -> None:
        """A publication there, a subscription here."""
        sql = f"CREATE ROLE trial LOGIN REPLICATION PASSWORD 'trial' IN ROLE {pair.name};"
        self.ask(pair.here.host, pair.name, f"{sql} CREATE PUBLICATION trial FOR TABLE big;")
        at = f"host=127.0.0.1 port={REMOTE_PORT} user=trial password=trial dbname={pair.name}"
        self.ask(pair.there.host, pair.name, "TRUNCATE big;")
        self.ask(pair.there.host, pair.name, f"CREATE SUBSCRIPTION trial CONNECTION '{at}' PUBLICATION trial;")
        while (
            self.ask(pair.there.host, pair.name, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel;") != "t\n"
        ):
            time.sleep(0.2)

    def behind(self, pair: Pair) -> None:
        """Return when all that is there is here, too."""
        lsn = self.ask(pair.here.host, pair.name, "SELECT pg_current_wal_lsn();").strip()
        sql = f"SELECT replay_lsn >= '{lsn}' FROM pg_stat_replication WHERE application_name = 'trial';"
        while self.ask(pair.here.host, pair.name, sql) != "t\n":
            time.sleep(0.02)

    def stop(self, pair: Pair) -> None:
        """Nothing of it is left."""
        self.ask(pair.there.host, pair.name, "DROP SUBSCRIPTION IF EXISTS trial;")
        self.ask(pair.here.host, pair.name, "DROP PUBLICATION trial; DROP OWNED BY trial; DROP ROLE trial;")


def ran(host: LabHost, argv: list[str], sql: str = "") -> str:
    """What a program prints on a host."""
    done = host.exec(argv, stdin=sql.encode(), timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@contextmanager
def forwarded(by_hand: ByHand, pair: Pair, port: int) -> Iterator[None]:
    """The source's database under a port of the target's, through two SSH connections of the worker's."""
    lines = [
        by_hand.ssh(pair.here.host, "-").removesuffix(" -") + f" -N -L {LOCAL_PORT}:127.0.0.1:{port}",
        by_hand.ssh(pair.there.host, "-").removesuffix(" -") + f" -N -R {REMOTE_PORT}:127.0.0.1:{LOCAL_PORT}",
    ]
    tunnels = [subprocess.Popen(["sh", "-c", f"exec {line}"], stdout=subprocess.DEVNULL) for line in lines]
    try:
        time.sleep(3)
        yield
    finally:
        for tunnel in tunnels:
            tunnel.terminate()
            tunnel.wait()


@asynccontextmanager
async def writing(engine: Mariadb | Postgresql, pair: Pair) -> AsyncIterator[None]:
    """The client writes 200 rows a second; at the end all of them are acknowledged."""
    process = await asyncio.create_subprocess_exec(
        "docker", "exec", "--interactive", pair.here.host.name, *engine.client(pair.name), stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    stdin, stop = process.stdin, asyncio.Event()

    async def write() -> None:
        number = ROWS
        while not stop.is_set():
            number += 1
            stdin.write(engine.write.format(id=number).encode())
            await stdin.drain()
            await asyncio.sleep(0.005)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        stop.set()
        await task
        stdin.close()
        status = await process.wait()
    assert status == 0


async def trial(engine: Mariadb | Postgresql, pair: Pair, by_hand: ByHand) -> tuple[float, float, float]:
    """Seconds of the database's restart, of the streamed pass, and from the freeze until the last change is there."""
    began = time.monotonic()
    ran(pair.here.host, ["bash", "-c", engine.on])
    restart_s = time.monotonic() - began
    try:
        await pair.here.ask(FILL[pair.here.spec.engine])
        streamed_s = await by_relay(pair.here, pair.there)
        with forwarded(by_hand, pair, engine.port):
            async with writing(engine, pair):
                await asyncio.to_thread(engine.start, pair)
                await asyncio.sleep(WRITE_S)
            frozen = time.monotonic()
            engine.behind(pair)
            behind_s = time.monotonic() - frozen
            rows = [engine.ask(site.host, pair.name, "SELECT count(*) FROM big;") for site in (pair.here, pair.there)]
            assert rows[0] == rows[1] != f"{ROWS}\n", rows
            engine.stop(pair)
    finally:
        ran(pair.here.host, ["bash", "-c", engine.off])
    return restart_s, streamed_s, behind_s


async def measure(engine: DatabaseEngine, hosts: list[LabHost], folder: Path) -> list[Figure]:
    """One trial."""
    by_hand, spec = ByHand.make(folder, hosts[0]), spec_for(engine)
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(a_site(host, spec)) for host in hosts]
        program = Mariadb() if engine is DatabaseEngine.MARIADB else Postgresql()
        restart_s, streamed_s, behind_s = await trial(program, Pair(here, there, folder), by_hand)
    return [
        Figure(f"{engine}: from the freeze to the last change, beside the pass", behind_s, streamed_s, "s", "peer"),
        Figure(
            f"{engine}: the restart of every client's database for it, beside the pass",
            restart_s,
            streamed_s,
            "s",
            "peer",
        ),
    ]


async def run() -> list[Figure]:
    """Both database systems; nothing where the lab cannot run."""
    if reason := lab_available():
        print(f"[left out: {reason}] ", end="")
        return []
    hosts = start_lab(HOSTS)[-2:]
    found: list[Figure] = []
    for engine in DatabaseEngine:
        with TemporaryDirectory() as folder:
            found += await measure(engine, hosts, Path(folder))
    return found
