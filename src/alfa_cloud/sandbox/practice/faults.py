"""What is to go wrong on a practice server: told by tests in a file, taken by whatever runs a command."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from alfa_cloud.sandbox.practice.folder import write_aside

FLOOD_LINE: Final = b"the quick brown fox jumps over the lazy dog 0123456789 and floods the log\n"
# Bad UTF-8, NUL, a terminal title, colours, a bidi override, a script, and a line without an end.
GARBAGE: Final = (
    b"\xff\xfe\x00\x80\xc3(\x1b]0;owned\x07\x1b[31mred\x1b[0m\xe2\x80\xae<script>alert(1)</script>\r\n"
    + bytes(range(256))
)


class Action(StrEnum):
    """What goes wrong."""

    FAIL = "fail"
    """It ends with `exit_status` and `stderr`, having done nothing (phase `after`: all of it)."""
    HANG = "hang"
    """It stands still for `seconds` (None: until it is ended), and then fails."""
    SLOW = "slow"
    """It stands still for `seconds`, and then does its work."""
    FLOOD = "flood"
    """It prints `lines` lines as well."""
    GARBAGE = "garbage"
    """It prints `lines` pieces of hostile bytes as well."""
    KILL_CONNECTION = "kill_connection"
    """The SSH connection is cut."""
    NOEXIT = "noexit"
    """The SSH channel closes without an exit status."""


class Phase(StrEnum):
    """When it goes wrong."""

    BEFORE = "before"
    """Instead of the work (`slow`, `flood`, `garbage`: before it)."""
    DURING = "during"
    """And the work goes on (`kill_connection` and `noexit`)."""
    AFTER = "after"
    """When the work is done."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Args:
        match: a regular expression, searched in the arguments joined by spaces.
        times: how often; None is always.
        skip: how many commands that match are spared first.
    """

    id: str
    match: str
    action: Action
    phase: Phase = Phase.BEFORE
    exit_status: int = 1
    stderr: str = ""
    seconds: float | None = None
    lines: int = 1_000_000
    times: int | None = None
    skip: int = 0

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> Fault:
        """A fault as it stands in the file."""
        return cls(**{**raw, "action": Action(raw["action"]), "phase": Phase(raw["phase"])})


def load(path: Path) -> list[Fault]:
    """The faults in a file; none where there is no file."""
    try:
        return [Fault.parse(raw) for raw in json.loads(path.read_text())]
    except FileNotFoundError:
        return []


def save(path: Path, faults: Iterable[Fault]) -> None:
    """A file holds these faults."""
    write_aside(path, json.dumps([asdict(fault) for fault in faults]))


class FaultBook:
    """The faults of a running practice server, and how often each one was met, over its reboots too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts = path.with_name("faults-met.json")
        self.met: dict[str, int] = json.loads(self.counts.read_text()) if self.counts.exists() else {}
        self.lock = threading.Lock()

    def told(self) -> bool:
        """Whether anything is to go wrong."""
        return bool(load(self.path))

    def take(self, line: str, inner: Callable[[], Sequence[str]]) -> Fault | None:
        """The first fault that is due for a command line.

        Args:
            inner: the lines of stand-ins that this one will call: a fault that fits one of them waits for it.
        """
        with self.lock:
            within = inner() if (told := load(self.path)) else ()
            for fault in told:
                pattern = re.compile(fault.match, re.DOTALL)
                met = self.met.get(fault.id, 0)
                due = fault.times is None or met < fault.skip + fault.times
                if due and pattern.search(line) and not any(map(pattern.search, within)):
                    self.met[fault.id] = met + 1
                    write_aside(self.counts, json.dumps(self.met))
                    if met >= fault.skip:
                        return fault
        return None


def inner_lines(line: str | Sequence[str], programs: Set[str]) -> list[str]:
    """What the stand-ins will see that a line calls: the words from a stand-in's name on, or a piece of a script."""
    found: list[str] = []
    for place, word in enumerate(parts := _split(line)):
        if word in programs:
            return [*found, " ".join(parts[place:])]
        if re.search(r"\s", word):
            pieces = re.split(r"[;|&()\n]+", word)
            found += [piece.strip() for piece in pieces if not programs.isdisjoint(piece.split())]
    return found


def _split(line: str | Sequence[str]) -> list[str]:
    """The words of a shell line, as well as they can be told."""
    if not isinstance(line, str):
        return list(line)
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        return list(lexer)
    except ValueError:
        return line.split()
