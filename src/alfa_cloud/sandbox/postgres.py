"""An embedded PostgreSQL: one data folder, a unix socket of its own, gone with the process that started it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from alfa_cloud.sandbox import binaries, child
from alfa_cloud.sandbox.child import FolderLock, SandboxError

SUPERUSER: Final = "postgres"
START_TIMEOUT_S: Final = 60
INITDB: Final = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
UNSAFE: Final = ("fsync=off", "full_page_writes=off")
"""A crash of the machine may lose data; one of PostgreSQL alone, as tests cause it, loses none."""


class EmbeddedPostgres:
    """A PostgreSQL server for one process: over a unix socket, without TCP unless `tcp_port` is given.

    Args:
        data_dir: its folder, made where missing; the same data at the next start.
        database: made where missing; `url` leads there.
        fsync: off in tests: faster, and the data may be lost with the machine.
        tcp_port: also listen on 127.0.0.1, where roles log in with their passwords (scram).
        run_as: forces how it runs under root, in tests.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        database: str = "alfa",
        fsync: bool = True,
        tcp_port: int | None = None,
        run_as: binaries.RunAs | None = None,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.database = database
        self.fsync = fsync
        self.tcp_port = tcp_port
        self.run_as = run_as
        self.log = self.data_dir / "postgres.log"
        self._lock = FolderLock(self.data_dir / "lock", "The embedded PostgreSQL")
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: binaries.Identity | None = None
        self._socket_dir: Path | None = None

    @property
    def url(self) -> str:
        """The address of its database, for SQLAlchemy with asyncpg."""
        return self.url_for(self.database)

    def url_for(self, database: str) -> str:
        """The address of one of its databases, for SQLAlchemy with asyncpg."""
        place = quote(str(self.socket_dir), safe="/")
        return f"postgresql+asyncpg://{SUPERUSER}@/{quote(database)}?host={place}&port={self.port}"

    @property
    def port(self) -> int:
        """The TCP port, and the number in the socket's name where there is no TCP."""
        return self.tcp_port or 5432

    @property
    def socket_dir(self) -> Path:
        """The 0700 folder of its socket; the same as long as this object is not stopped."""
        if self._socket_dir is None:
            raise SandboxError("PostgreSQL is not started.")
        return self._socket_dir

    @property
    def identity(self) -> binaries.Identity:
        """As whom it runs, and where."""
        if self._identity is None:
            raise SandboxError("PostgreSQL is not started.")
        return self._identity

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own data folder."""
        return self.identity.data_dir / "cluster"

    @property
    def pid(self) -> int | None:
        """Its main process."""
        return self._process.pid if self.alive and self._process else None

    @property
    def alive(self) -> bool:
        """Whether its main process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """It accepts connections; nothing happens where it does already.

        Raises:
            SandboxError: it does not start, or another run has the data; the message says why.
        """
        if self.alive:
            return
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._identity = self._identity or binaries.identify(self.data_dir, self.run_as)
            self._await_former()
            self._make_socket_dir()
            fresh = not (self.cluster / "PG_VERSION").exists()
            if fresh:
                self._initdb()
            self._launch()
            if fresh or not (self.data_dir / "database").exists():
                self.create_database(self.database, if_missing=True)
                (self.data_dir / "database").write_text(self.database)
        except BaseException:
            self.stop(immediate=True)
            raise

    def stop(self, *, immediate: bool = False) -> None:
        """It is gone, and its socket folder too."""
        self.halt(immediate=immediate)
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            (self.data_dir / "socket_dir").unlink(missing_ok=True)
            self._socket_dir = None
        self._lock.release()

    def restart(self, *, immediate: bool = True) -> None:
        """It was cut off (as by a crash, or in order) and accepts connections again, at the same address."""
        self.halt(immediate=immediate)
        self.start()

    def halt(self, *, immediate: bool = False) -> None:
        """It is down, and `start` brings it back at the same address."""
        if self._process is not None:
            child.end_process(self._process, signal.SIGQUIT if immediate else signal.SIGINT, timeout_s=30)
            self._process = None

    def kill(self) -> None:
        """Its main process died by `kill -9`; `start` brings it back at the same address."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def create_database(self, name: str, *, template: str = "template0", if_missing: bool = False) -> None:
        """A database of this name is there, copied from a template that nobody is connected to."""
        if if_missing and self.psql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'", database="postgres"):
            return
        self.psql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"', database="postgres")

    def drop_database(self, name: str) -> None:
        """No database has this name; whoever was connected to it is not any more."""
        self.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', database="postgres")

    def psql(self, sql: str, *, database: str | None = None) -> str:
        """Run SQL as the superuser; what it printed.

        Raises:
            SandboxError: PostgreSQL refused it.
        """
        argv = [str(self.identity.bin / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        argv += ["--set=ON_ERROR_STOP=1", f"--host={self.socket_dir}", f"--username={SUPERUSER}"]
        argv += [f"--port={self.port}", f"--dbname={database or self.database}", "--file=-"]
        done = subprocess.run(argv, input=sql.encode(), capture_output=True, env=self.environment(), check=False)
        if done.returncode:
            raise SandboxError(f"psql ended with {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()}")
        return done.stdout.decode().strip()

    def environment(self) -> dict[str, str]:
        """Our environment without what leads libpq elsewhere."""
        return {key: value for key, value in os.environ.items() if not key.startswith("PG")}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _postmaster(self) -> tuple[int, str] | None:
        """The process and the state that PostgreSQL's own lock file tells."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
        except (OSError, ValueError, IndexError):
            return None

    def _await_former(self) -> None:
        """The server of a killed run, which stops by itself, is gone."""
        former = self._postmaster()
        if former is None:
            return
        command_line = Path(f"/proc/{former[0]}/cmdline")

        def gone() -> bool:
            try:
                return str(self.cluster).encode() not in command_line.read_bytes()
            except OSError:
                return True

        if not child.wait_until(gone, timeout_s=15):
            raise SandboxError(f"A PostgreSQL (process {former[0]}) still runs on {self.cluster}; stop it first.")

    def _make_socket_dir(self) -> None:
        """There is a short private folder for the socket; a killed run's one is removed."""
        note = self.data_dir / "socket_dir"
        if self._socket_dir is None:
            if note.exists():
                former = Path(note.read_text().strip())
                if former.name.startswith("alfa-pg-"):
                    shutil.rmtree(former, ignore_errors=True)
            base = tempfile.gettempdir()
            self._socket_dir = Path(tempfile.mkdtemp(prefix="alfa-pg-", dir=base if len(base) < 60 else "/tmp"))
            note.write_text(f"{self._socket_dir}\n")
        self.identity.own(self._socket_dir)

    def _initdb(self) -> None:
        """A fresh cluster lies in the data folder, whole or not at all."""
        unfinished = self.identity.data_dir / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(self.cluster, ignore_errors=True)
        argv = [*self.identity.prefix(), str(self.identity.bin / "initdb"), "--auth-local=trust"]
        argv += ["--auth-host=scram-sha-256", f"--username={SUPERUSER}", "--no-sync", *INITDB, "-D", str(unfinished)]
        done = subprocess.run(
            argv, capture_output=True, env=self.environment(), cwd="/", check=False, start_new_session=True
        )
        if done.returncode:
            raise SandboxError(f"initdb failed in {unfinished}: {done.stderr.decode('utf-8', 'replace').strip()}")
        unfinished.rename(self.cluster)

    def _argv(self) -> list[str]:
        """The server's own command line."""
        options = [f"unix_socket_directories={self.socket_dir}", "max_connections=300", "shared_buffers=64MB"]
        options += [f"listen_addresses={'127.0.0.1' if self.tcp_port else ''}", "log_checkpoints=off"]
        options += [f"port={self.tcp_port}"] if self.tcp_port else []
        if self.tcp_port and int((self.cluster / "PG_VERSION").read_text()) >= 16:
            options.append("scram_iterations=1")  # the passwords are random, and guard a practice server
        options += [] if self.fsync else UNSAFE
        argv = [str(self.identity.bin / "postgres"), "-D", str(self.cluster)]
        return argv + [word for option in options for word in ("-c", option)]

    def _launch(self) -> None:
        """The server runs and is ready; after `kill -9` its children may need a moment to go."""
        end = monotonic() + START_TIMEOUT_S
        while True:
            with self.log.open("ab") as log:
                argv = [*self.identity.prefix(), *child.tied(self._argv(), signal.SIGINT)]
                self._process = child.spawn(argv, log=log, death_signal=None, env=self.environment(), cwd=Path("/"))
            if child.wait_until(self._settled, timeout_s=START_TIMEOUT_S) and self._process.poll() is None:
                return
            self._process.kill()
            self._process.wait()
            words = child.tail(self.log)
            if monotonic() > end or "still in use" not in words.splitlines()[-2:][0]:
                raise SandboxError(f"PostgreSQL does not start; its last words, of {self.log}:\n{words}")

    def _settled(self) -> bool:
        """Whether it is ready, or over."""
        if self._process is None or self._process.poll() is not None:
            return True
        return self._postmaster() == (self._process.pid, "ready") and self._answers()

    def _answers(self) -> bool:
        """Whether its socket takes connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket_dir / f".s.PGSQL.{self.port}"))
            except OSError:
                return False
        return True
