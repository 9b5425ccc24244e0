"""Every command that a practice server executed: what, when, and how it ended; never what it read."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any


@dataclass(frozen=True, slots=True)
class Recorded:
    """One command.

    Args:
        kind: `ssh`, a line as the SSH server took it, or `stand_in`.
        argv: of a stand-in; the name first.
        line: the shell line, or the arguments joined by spaces.
        started: on the machine's monotonic clock.
        ended: None while it runs, or where it became another program (sudo).
        exit_status: None while it runs; -N where signal N ended it.
        fault: the action that struck it, or an empty text.
    """

    id: str
    kind: str
    program: str
    argv: tuple[str, ...]
    line: str
    session: str
    started: float
    ended: float | None = None
    exit_status: int | None = None
    fault: str = ""


class Recorder:
    """Appends to the file of commands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.count = 0

    def begin(self, kind: str, program: str, argv: tuple[str, ...], line: str, session: str) -> str:
        """A command has started; its id."""
        with self.lock:
            self.count += 1
            name = f"{os.getpid()}-{monotonic():.6f}-{self.count}"
            entry = {"id": name, "kind": kind, "program": program, "argv": argv, "line": line, "session": session}
            self._write({**entry, "started": monotonic()})
        return name

    def end(self, name: str, exit_status: int | None, fault: str = "") -> None:
        """A command has ended."""
        with self.lock:
            self._write({"id": name, "ended": monotonic(), "exit_status": exit_status, "fault": fault})

    def _write(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=True) + "\n")


def read(path: Path) -> list[Recorded]:
    """All commands in a file, in the order in which they started."""
    entries: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a line cut by a kill
                continue
            entries.setdefault(entry["id"], {}).update(entry)
    return [Recorded(**{**entry, "argv": tuple(entry["argv"])}) for entry in entries.values() if "started" in entry]
