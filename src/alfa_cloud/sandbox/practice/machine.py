"""A running practice server: its parts, and what its stand-ins may ask of it."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from alfa_cloud.sandbox.postgres import EmbeddedPostgres
from alfa_cloud.sandbox.practice.engine import Engine
from alfa_cloud.sandbox.practice.faults import FaultBook
from alfa_cloud.sandbox.practice.folder import MARKER, PracticeFolder, write_aside
from alfa_cloud.sandbox.practice.nginx import Nginx
from alfa_cloud.sandbox.practice.recorder import Recorder


def nothing(*_: object) -> None:
    """What a machine without SSH does."""


@dataclass(slots=True)
class Machine:
    """The parts of a practice server."""

    folder: PracticeFolder
    database: EmbeddedPostgres
    engine: Engine
    nginx: Nginx
    faults: FaultBook
    recorder: Recorder
    reboot: Callable[[], None] = field(default=nothing)
    cut: Callable[[str, bool], None] = field(default=nothing)
    """Cut the connection of a session, or (True) close its channel without an exit status."""

    @classmethod
    def build(cls, root: Path, *, fsync: bool = True) -> Machine:
        """The parts, on a folder; nothing runs yet but the database."""
        folder = PracticeFolder(root)
        folder.prepare()
        database = EmbeddedPostgres(
            root / "database", database="postgres", fsync=fsync, tcp_port=folder.ports().database
        )
        database.start()
        return cls(
            folder=folder,
            database=database,
            engine=Engine(folder, database.identity.bin / "psql"),
            nginx=Nginx(folder),
            faults=FaultBook(folder.faults),
            recorder=Recorder(folder.commands),
        )

    def boot(self) -> None:
        """nginx serves, and the containers run that Docker would start."""
        write_aside(self.folder.boot_id, f"{uuid.uuid4()}\n")
        self.nginx.start()
        self.engine.boot()

    def shut_down(self) -> None:
        """Nothing that was started here runs any more."""
        self.engine.close()
        self.nginx.stop()
        self.database.stop()
        end_all(self.folder.root)


def marked(root: Path) -> Iterator[int]:
    """The processes that bear a folder's mark, but for this one."""
    mark = os.fsencode(f"{MARKER}={root}") + b"\0"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes() + b"\0":
                    yield int(entry.name)


def end_all(root: Path, *, timeout_s: float = 10) -> None:
    """No process bears a folder's mark."""
    end = monotonic() + timeout_s
    while monotonic() < end:
        found = list(marked(root))
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap()
        sleep(0.01)


def children() -> Iterator[tuple[int, bool]]:
    """This process's children, and whether each is a zombie."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            for pid in (task / "children").read_text().split():
                with suppress(OSError):
                    yield int(pid), Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"


def reap(known: frozenset[int] | None = None) -> frozenset[int]:
    """Take adopted zombies off the list; those seen for the first time are left to whoever waits for them.

    Args:
        known: the zombies of the last call; None takes them all.
    """
    zombies = frozenset(pid for pid, dead in children() if dead)
    for pid in zombies if known is None else zombies & known:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return zombies
