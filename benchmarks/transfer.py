"""A client's database from one real host into another's, beside the same programs between two OpenSSH clients."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab.hosts import LabHost, lab_available, start_lab
from tests.lab.test_dump import Site, a_site, spec_for

from alfa_cloud.remote import dump, dump_stream, keys
from alfa_cloud.remote.relay import relay
from alfa_cloud.specs import DatabaseEngine
from benchmarks.figures import Figure, median
from benchmarks.log_flood import peak_mb

PAIRS = 3
ROWS = 200_000
WORDS = 14
MEMORY_LIMIT_MB = 200.0
HOSTS = int(os.environ.get("ALFA_BENCH_HOSTS", "2"))
"""The last two of so many hosts of the lab are taken."""

FILL = {
    DatabaseEngine.MARIADB: f"""CREATE TABLE big (id int PRIMARY KEY, words text);
        INSERT INTO big SELECT seq, CONCAT({", ".join(f"MD5(CONCAT({n}, ' ', seq))" for n in range(WORDS))})
          FROM seq_1_to_{ROWS};""",
    DatabaseEngine.POSTGRESQL: f"""CREATE TABLE big (id int PRIMARY KEY, words text);
        INSERT INTO big SELECT g, {" || ".join(f"md5({n} || ' ' || g)" for n in range(WORDS))}
          FROM generate_series(1, {ROWS}) g;""",
}


@dataclass(frozen=True, slots=True)
class ByHand:
    """OpenSSH's own client, with a key for the hosts."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, host: LabHost) -> ByHand:
        private, public = keys.generate_key()
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text(private.reveal())
        host.authorize(public)
        return cls(folder)

    def ssh(self, host: LabHost, line: str) -> str:
        """The line that runs a line there."""
        options = [
            "StrictHostKeyChecking=accept-new",
            f"UserKnownHostsFile={self.folder}/known_hosts",
            "LogLevel=ERROR",
        ]
        words = ["ssh", "-i", f"{self.folder}/key", *(word for one in options for word in ("-o", one))]
        return shlex.join([*words, f"www-data@{host.address}", line])

    def copy(self, here: Site, there: Site) -> float:
        """The seconds that `ssh A 'dump | zstd' | ssh B 'zstd -d | restore'` takes, into an empty database."""
        engine = dump.engine_of(here.spec)
        empty = engine.empty(there.spec)
        assert there.host.exec(empty.argv, stdin=empty.stdin).returncode == 0
        dumped = f"sudo {shlex.join(engine.stream_argv(here.spec))} | zstd --quiet --stdout"
        loaded = f"zstd --quiet --decompress --stdout | sudo {shlex.join(engine.load_argv(there.spec))}"
        line = f"set -o pipefail; {self.ssh(here.host, dumped)} | {self.ssh(there.host, loaded)}"
        began = time.monotonic()
        subprocess.run(["bash", "-c", line], check=True)
        return time.monotonic() - began


async def by_relay(here: Site, there: Site) -> float:
    """The seconds that our own stream takes, which also empties the database and counts what comes by."""
    began = time.monotonic()
    await relay(
        here.session(), dump_stream.produce(here.spec), there.session(), dump_stream.consume(there.spec)
    )  # fmt: skip
    return time.monotonic() - began


async def measure(engine: DatabaseEngine, hosts: list[LabHost], by_hand: ByHand) -> Figure:
    """Both ways in turn, after one of each to warm up."""
    spec = spec_for(engine)
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(a_site(host, spec)) for host in hosts]
        await here.ask(FILL[engine])
        ours, theirs = [], []
        for _ in range(PAIRS + 1):
            theirs.append(by_hand.copy(here, there))
            ours.append(await by_relay(here, there))
        rows = await there.ask("SELECT count(*) FROM big;")
        assert rows.strip() == str(ROWS), rows
    print(f"[{engine}: ours {_seconds(ours)}, by hand {_seconds(theirs)}] ", end="", flush=True)
    what = f"{engine}: a database streamed, beside ssh | ssh (1.25 is 0.8 of its throughput)"
    return Figure(what, median(ours[1:]), median(theirs[1:]), "s", "peer")


def _seconds(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


async def run() -> list[Figure]:
    """Both database systems; nothing where the lab cannot run."""
    if reason := lab_available():
        print(f"[left out: {reason}] ", end="")
        return []
    hosts = start_lab(HOSTS)[-2:]
    with TemporaryDirectory() as folder:
        by_hand = ByHand.make(Path(folder), hosts[0])
        figures = [await measure(engine, hosts, by_hand) for engine in DatabaseEngine]
    return [*figures, Figure("the worker's peak memory", peak_mb(os.getpid()), MEMORY_LIMIT_MB, "MB", "limit")]
